"""ONNX initialisers against the onnx package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from snapshots_helpers import read_tensor

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotMissingError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
)
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.readers import look, reader_for


def _model(path: Path, *, norm: bool = True, outside: bool = False, step: int = 0) -> Any:
    draw = np.random.default_rng(step)
    arrays = {
        "conv.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv.bias": draw.normal(size=4).astype(np.float32),
        "double": draw.normal(size=(3, 5)),
        "half": draw.normal(size=(2, 2)).astype(np.float16),
    }
    tensors = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    listed = draw.normal(size=(2, 3)).astype(np.float32)
    arrays["listed"] = listed
    tensors.append(helper.make_tensor("listed", TensorProto.FLOAT, (2, 3), listed.ravel()))
    arrays["empty"] = np.zeros((0, 2), np.float32)
    tensors.append(numpy_helper.from_array(arrays["empty"], "empty"))
    tensors.append(helper.make_tensor("axes", TensorProto.INT64, (2,), [1, 2]))
    inputs = ["x", "conv.weight"] if norm else ["x", "conv.weight", "conv.bias"]
    nodes = [helper.make_node("Conv", inputs, ["y"])]
    if norm:
        statistics = ["conv.bias"] * 4
        nodes.append(helper.make_node("BatchNormalization", ["y", *statistics], ["z"]))
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    model = helper.make_model(graph, producer_name="test")
    helper.set_model_props(model, {"step": str(step)})
    kwargs: Any = {}
    if outside:
        kwargs = {"save_as_external_data": True, "location": "w.data", "size_threshold": 20}
    onnx.save(model, path, **kwargs)
    return arrays


@pytest.mark.parametrize("outside", [False, True])
def test_initialisers(tmp_path: Path, outside: bool) -> None:
    path = tmp_path / "model.onnx"
    arrays = _model(path, outside=outside, step=7)
    snapshot = open_snapshot(path)
    assert snapshot.format == "onnx" and snapshot.step == 7
    read = onnx.load(path)
    for tensor in read.graph.initializer:
        if tensor.name == "axes":
            continue
        ours = read_tensor(snapshot.tensors[tensor.name]).numpy()
        assert np.array_equal(ours, numpy_helper.to_array(tensor)), tensor.name
        assert np.array_equal(ours, arrays[tensor.name])
    places = {Path(e.path).name for e in snapshot.tensors["conv.weight"].extents}
    assert places == ({"w.data"} if outside else {"model.onnx"})


def test_a_run_and_the_note_about_folding(tmp_path: Path) -> None:
    for step in (2, 10):
        _model(tmp_path / f"model_step{step}.onnx", norm=step == 10, step=step)
    series = open_series(tmp_path)
    assert series.steps == (2, 10)
    assert "folded" in series.snapshots[0].scalars["conversion"]
    assert "conversion" not in series.snapshots[1].scalars


@pytest.mark.parametrize("location", ["../w.data", "/etc/passwd", "link.data", ""])
def test_external_data_stays_in_its_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "w.data").write_bytes(b"\0" * 4000)
    (folder / "link.data").symlink_to(tmp_path / "w.data")
    _model(folder / "a.onnx", outside=True)
    model = onnx.load(folder / "a.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SnapshotUnsafeError, match="outside its own folder"):
        open_snapshot(folder / "a.onnx")


def _change(path: Path, key: str, value: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    path.write_bytes(model.SerializeToString())


def test_claims_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    cases: list[tuple[str, str, type[SnapshotError]]] = [
        ("offset", "99999999", SnapshotTruncatedError),
        ("offset", "-1", SnapshotCorruptError),
        ("length", "17", SnapshotCorruptError),
        ("location", "absent.data", SnapshotMissingError),
    ]
    for key, value, error in cases:
        _model(path, outside=True)
        _change(path, key, value)
        with pytest.raises(error):
            open_snapshot(path)
    _model(path)
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 1 << 40
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SnapshotCorruptError, match="another size"):
        open_snapshot(path)


def test_a_saved_model_is_not_taken_for_onnx(tmp_path: Path) -> None:
    path = tmp_path / "saved_model.pb"
    path.write_bytes(b"\x08\x01\x12\x05hello" + b"\0" * 100)
    assert reader_for(look(path)) is None
