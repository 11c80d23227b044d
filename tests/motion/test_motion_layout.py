"""Blocks cover every element once and know its channel; storage order is torch's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smdlens.motion.layout import Layout, blocks, layout_of, storage_order

SIDES = st.integers(1, 7)


@given(outer=SIDES, count=SIDES, inner=SIDES, size=st.integers(1, 400))
def test_blocks_partition_the_tensor(outer: int, count: int, inner: int, size: int) -> None:
    layout = Layout(outer, count, inner)
    index = np.arange(layout.numel).reshape(outer, count, inner)
    channel_of = np.broadcast_to(np.arange(count)[None, :, None], index.shape).reshape(-1)
    clock_of = np.broadcast_to(
        np.arange(outer * inner).reshape(outer, 1, inner), index.shape
    ).reshape(-1)
    at = 0
    for block in blocks(layout, size):
        assert block.low == at
        assert block.high - block.low <= size
        k, c, n = block.shape
        assert k * c * n == block.high - block.low
        channels = np.broadcast_to(np.arange(c)[None, :, None] + block.channel, (k, c, n))
        assert (channels.reshape(-1) == channel_of[block.low : block.high]).all()
        places = np.arange(k * n).reshape(k, 1, n) + block.clock
        expected = clock_of[block.low : block.high]
        assert (np.broadcast_to(places, (k, c, n)).reshape(-1) == expected).all()
        at = block.high
    assert at == layout.numel


@pytest.mark.parametrize("axes", list(itertools.permutations(range(4))))
def test_storage_order_of_permuted_dense_tensors(axes: tuple[int, ...]) -> None:
    tensor = torch.randn(3, 4, 5, 2).permute(axes)
    order = storage_order(tuple(tensor.shape), tuple(tensor.stride()))
    assert order is not None
    flat = tensor.as_strided((tensor.numel(),), (1,))
    assert torch.equal(tensor.permute(order).reshape(-1), flat)
    for axis in range(4):
        layout = layout_of(tuple(tensor.shape), order, axis)
        cube = flat.view(layout.outer, layout.count, layout.inner)
        expected = tensor.double().square().sum([d for d in range(4) if d != axis])
        assert torch.allclose(cube.double().square().sum((0, 2)), expected)


def test_storage_order_of_tensors_that_are_not_dense() -> None:
    assert storage_order((4, 4), (8, 1)) is None
    assert storage_order((4, 4), (1, 0)) is None
    assert storage_order((4, 4), (4, 2)) is None


def test_axes_of_length_one_carry_any_stride() -> None:
    assert storage_order((3, 1, 5), (5, 77, 1)) == (0, 1, 2)
    channels_last = torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last)
    assert storage_order((8, 3, 1, 1), tuple(channels_last.stride())) == (0, 1, 2, 3)


@given(outer=SIDES, count=SIDES, inner=SIDES, size=st.integers(2, 400))
def test_halves_are_the_same_elements(outer: int, count: int, inner: int, size: int) -> None:
    layout = Layout(outer, count, inner)
    index = np.arange(layout.numel).reshape(outer, count, inner)
    channel_of = np.broadcast_to(np.arange(count)[None, :, None], index.shape).reshape(-1)
    for block in blocks(layout, size):
        if block.size == 1:
            continue
        first, second = block.halves()
        assert (first.low, first.high, second.high) == (block.low, second.low, block.high)
        for half in (first, second):
            k, c, n = half.shape
            assert k * c * n == half.size
            channels = np.broadcast_to(np.arange(c)[None, :, None] + half.channel, (k, c, n))
            assert (channels.reshape(-1) == channel_of[half.low : half.high]).all()
            places = np.arange(k * n).reshape(k, 1, n) + half.clock
            whole = np.arange(layout.clock_size).reshape(outer, 1, inner)
            expected = np.broadcast_to(whole, index.shape).reshape(-1)[half.low : half.high]
            assert (np.broadcast_to(places, (k, c, n)).reshape(-1) == expected).all()
