"""Writes golden/tensorboard with TensorBoard 2.21: `python -P tests/golden/make_tensorboard.py`.

Needs tensorboard (not part of the test environment; -P because a folder beside the script is called
tensorflow). The files are kept as they are.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

FOLDER = Path(__file__).parent / "tensorboard"


def accuracy(step: int) -> float:
    """Climbs, ever more slowly."""
    return 0.9 * (1 - math.exp(-step / 30))


def main() -> None:
    """One writer as torch.utils.tensorboard writes, one as tf.summary does."""
    writer = EventFileWriter(str(FOLDER / "torch"))
    for step in range(10, 101, 10):
        value = Summary.Value(tag="accuracy/test", simple_value=accuracy(step))
        loss = Summary.Value(tag="loss/train", simple_value=1.0 / step)
        writer.add_event(Event(step=step, wall_time=1e9 + step, summary=Summary(value=[value])))
        writer.add_event(Event(step=step, wall_time=1e9 + step, summary=Summary(value=[loss])))
    histogram = HistogramProto(min=0, max=1, num=9, sum=3, bucket_limit=[0.5, 1.0], bucket=[4, 5])
    value = Summary.Value(tag="weights", histo=histogram)
    writer.add_event(Event(step=100, wall_time=1e9, summary=Summary(value=[value])))
    writer.close()
    writer = EventFileWriter(str(FOLDER / "keras" / "validation"))
    for epoch in range(6):
        for dtype in (np.float32, np.float64):
            name = "epoch_accuracy" if dtype is np.float32 else "epoch_loss"
            number = dtype(0.5 + 0.1 * epoch if name == "epoch_accuracy" else 1.0 - 0.1 * epoch)
            value = Summary.Value(tag=name, tensor=tensor_util.make_tensor_proto(number))
            value.metadata.plugin_data.plugin_name = "scalars"
            event = Event(step=epoch, wall_time=1e9, summary=Summary(value=[value]))
            writer.add_event(event)
    writer.close()
    for path in FOLDER.rglob("events.out.tfevents.*"):
        path.rename(path.with_name("events.out.tfevents.1.host"))


if __name__ == "__main__":
    main()
