"""Makes tests/golden/tensorflow_layouts with the real framework: tensorflow-cpu 2.21.0, v1 saver.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0
    python make_tensorflow_layouts.py

Variables in partitions along either axis, the names of slim, one number as a weight, types, the
buffers of an optimizer that is not read. Beside each checkpoint lies what TensorFlow holds.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
HERE = Path(__file__).parent / "tensorflow_layouts"
BUFFERS = {"Momentum": "momentum", "RMSProp": "", "RMSProp_1": ""}


def variables():
    get, split = v1.get_variable, v1.fixed_size_partitioner
    by_rows = get("rows/weights", (100, 3), partitioner=split(3, axis=0))
    by_columns = get("columns/weights", (3, 70), partitioner=split(4, axis=1))
    weights = [get("conv/weights", (3, 2, 4, 5)), get("dw/depthwise_weights", (3, 3, 5, 2))]
    weights += [get("scale", ()), get("out/kernel", (3, 7))]
    total = sum(
        tf.reduce_sum(tf.convert_to_tensor(w) ** 2) for w in [*weights, by_rows, by_columns]
    )
    for name, kind in (("half", tf.float16), ("brain", tf.bfloat16), ("double", tf.float64)):
        get(f"types/{name}", (2, 3), kind, trainable=False, initializer=v1.zeros_initializer())
    get("types/empty", (0, 3), trainable=False)
    return total


def save(name, optimizer):
    v1.reset_default_graph()
    draw = np.random.default_rng(0)
    step = v1.train.get_or_create_global_step()
    optimizer().minimize(variables(), global_step=step)
    kept = v1.global_variables()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for variable in kept:
            kind = variable.dtype.base_dtype
            if kind.is_floating:
                value = draw.standard_normal(variable.shape.as_list())
                variable.load(value.astype(kind.as_numpy_dtype), session)
        step.load(4321, session)
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        v1.train.Saver().save(session, str(folder / "model.ckpt"), step, write_meta_graph=False)
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt-4321"))
    found = {}
    for key in reader.get_variable_to_shape_map():
        value = reader.get_tensor(key)
        value = value.view("uint16") if value.dtype.name == "bfloat16" else value
        base, _, last = key.rpartition("/")
        if last not in BUFFERS:
            found[f"weight {key}"] = value
        elif BUFFERS[last]:
            found[f"{BUFFERS[last]} {base}"] = value
    del found["weight global_step"]
    np.savez_compressed(folder / "model.ckpt-4321.expected.npz", **found)


v1.disable_eager_execution()
save("momentum", lambda: v1.train.MomentumOptimizer(0.1, 0.9))
save("rmsprop", lambda: v1.train.RMSPropOptimizer(0.1, momentum=0.9))


v1.reset_default_graph()
with v1.Session() as session:
    v1.get_variable("weights", (2, 3))
    session.run(v1.global_variables_initializer())
    saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
    saver.save(session, str(HERE / "first_format"), write_meta_graph=False)
