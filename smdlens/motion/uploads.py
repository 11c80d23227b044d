"""From pinned memory to a GPU, on a stream of its own: the next bytes are read meanwhile."""

from __future__ import annotations

import torch


class Uploads:
    """One worker's way to the GPU; made in the thread that uses it.

    Everything that thread starts on the GPU goes to one stream, in order. Two host buffers take
    turns, and one is written to again only when its copy is done.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        self._done: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def next_buffer(self) -> str:
        """Name of the host buffer to read into; waits until it is free."""
        self._turn = 1 - self._turn
        if (done := self._done[self._turn]) is not None:
            done.synchronize()
        return f"raw{self._turn}"

    def start(self, values: torch.Tensor) -> torch.Tensor:
        """A copy on the GPU of what lies in the buffer whose turn it is."""
        copy = values.to(self._device, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        self._done[self._turn] = done
        return copy
