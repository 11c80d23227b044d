"""Makes tests/golden/keras with the real frameworks: Keras 3.15.1 and tf_keras 2.21.0.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0 h5py==3.14.0
    python make_keras.py keras
    python make_keras.py tf_keras

Beside the checkpoints of a run lies what the framework itself says it holds at each of them, from
`Variable.numpy()` and the optimizer's own attributes, never from a file (expected.json says which
array of expected.npz is what).
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "keras"
MOST = sys.argv[1] == "tf_keras"
if MOST:
    import tensorflow as tf
    import tf_keras as keras
else:
    import keras


def network():
    keras.utils.set_random_seed(0)
    layers, l2 = keras.layers, keras.regularizers.L2(0.01)
    x = start = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, (3, 2), use_bias=False, kernel_regularizer=l2, name="conv_a")(x)
    x = layers.BatchNormalization(name="norm_a")(x)
    x = y = layers.ReLU(name="relu_a")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="deep")(x)
    x = layers.BatchNormalization(name="norm_b", scale=False)(x)
    x = layers.Conv2D(4, 1, name="conv_b")(x)
    x = layers.LayerNormalization(name="norm_c")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(start, layers.Dense(3, name="head")(x), name="net")


def said_by_the_framework(model, optimizer):
    """Arrays by key, and what each is: layer, variable, slot."""
    arrays, meaning = {}, []
    for layer in model.layers:
        for variable in layer.variables:
            name = variable.name.removesuffix(":0").rpartition("/")[2]
            key = f"{layer.name}|{name}"
            arrays[key] = np.asarray(variable.numpy())
            meaning.append({"key": key, "layer": layer.name, "variable": name, "slot": None})
            for slot in getattr(optimizer, "get_slot_names", list)():
                if any(variable is v for v in layer.trainable_variables):
                    own = f"{key}|{slot}"
                    arrays[own] = optimizer.get_slot(variable, slot).numpy()
                    meaning.append(
                        {"key": own, "layer": layer.name, "variable": name, "slot": slot}
                    )
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    owners = [
        (layer.name, v.name.removesuffix(":0").rpartition("/")[2], v.numpy().shape)
        for layer in model.layers
        for v in layer.trainable_variables
    ]
    for slot, attributes in (
        ("momentum", ("momentums",)), ("m", ("_momentums", "_m")), ("v", ("_velocities", "_v")),
    ):  # fmt: skip
        for attribute in attributes:
            held = getattr(optimizer, attribute, None)
            if not held or (slot == "m" and "SGD" in type(optimizer).__name__):
                continue
            for (layer, name, shape), variable in zip(owners, held, strict=True):
                assert variable.numpy().shape == shape
                key = f"{layer}|{name}|{slot}"
                arrays[key] = np.asarray(variable.numpy())
                meaning.append({"key": key, "layer": layer, "variable": name, "slot": slot})
    return arrays, meaning


class Written(keras.Model):
    """A model written as a class: groups in its files are named by its attributes."""

    def __init__(self):
        super().__init__()
        layers = keras.layers
        self.b = layers.BatchNormalization(name="norm_a")
        self.a = layers.Conv2D(4, (3, 2), name="conv_a")
        self.blocks = [layers.Dense(4, name="head_a"), layers.Dense(3, name="head_b")]

    def call(self, x, training=False):
        x = self.b(self.a(x), training=training)
        for block in self.blocks:
            x = block(x)
        return keras.ops.mean(x, (1, 2))

    @property
    def ordered(self):
        return [self.b, self.a, *self.blocks]


def run(name, optimizer, saves, rates=None, make=network):
    """Train, save in every way at each step of `saves`: {step: names of files}."""
    model = make()
    model.compile(optimizer=optimizer, loss="mse")
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(8, 6, 6, 2)), draw.normal(size=(8, 3))
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    expected, steps = {}, {}
    for step in range(1, max(saves) + 1):
        if rates and step in rates:
            model.optimizer.learning_rate = rates[step]
        model.train_on_batch(x, y)
        if step not in saves:
            continue
        for file in saves[step]:
            path = str(folder / file)
            if file.startswith("ckpt-"):
                tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(path)
            elif file.startswith("saved_"):
                model.save(path, save_format="tf", save_traces=False)  # a small program
                for extra in ("keras_metadata.pb", "fingerprint.pb"):
                    (folder / file / extra).unlink(missing_ok=True)
            elif file.endswith(".weights.h5"):
                model.save_weights(path)
            elif file.startswith("legacy_weights"):
                model.save_weights(path, save_format="h5")
            else:
                model.save(path)
        arrays, meaning = said_by_the_framework(model, model.optimizer)
        expected |= {f"{step}|{key}": value for key, value in arrays.items()}
        rate = model.optimizer.learning_rate
        steps[step] = {
            "files": saves[step],
            "meaning": meaning,
            "learning_rate": float(rate.numpy() if hasattr(rate, "numpy") else rate),
            "iterations": int(model.optimizer.iterations.numpy()),
        }
    np.savez_compressed(folder / "expected.npz", **expected)
    (folder / "expected.json").write_text(json.dumps(steps, indent=1) + "\n")


o = keras.optimizers
if MOST:
    run(
        "tf_sgd",
        o.SGD(0.1, momentum=0.9, nesterov=True),
        {3: ["model-3.h5", "ckpt-3", "saved_3"], 5: ["w-5.weights.h5"]},
    )
    run("tf_adam", o.AdamW(1e-3, weight_decay=0.02), {3: ["model-3.keras", "model-3.h5"]})
    run(
        "tf_legacy",
        o.legacy.SGD(0.1, momentum=0.9),
        {3: ["model-3.h5", "ckpt-3", "legacy_weights-3.h5"]},
    )
    run("tf_legacy_adam", o.legacy.Adam(1e-3), {3: ["model-3.h5", "ckpt-3"]})
else:
    run(
        "sgd",
        o.SGD(0.1, momentum=0.9, nesterov=True),
        {
            3: ["model-3.keras", "w-3.weights.h5"],
            # Last: saving .h5 makes Keras forget the optimizer in every .keras saved later.
            6: ["model-6.keras", "w-6.weights.h5", "model-6.h5"],
        },
        {4: 0.01},
    )
    run("adam", o.Adam(1e-3), {3: ["model-3.keras", "model-3.h5", "w-3.weights.h5"]})
    run("adamw", o.AdamW(1e-3, weight_decay=0.02), {3: ["model-3.keras"]})
    run("sgdw", o.SGD(0.05, momentum=0.8, weight_decay=1e-3), {3: ["model-3.keras"]})
    run(
        "schedule",
        o.SGD(o.schedules.CosineDecay(0.1, 10), momentum=0.9),
        {6: ["model-6.keras"]},
    )
    written = {2: ["model-2.keras", "w-2.weights.h5"]}
    run("written", o.SGD(0.1, momentum=0.9), written, make=Written)
    averaged = o.Adam(1e-3, amsgrad=True, use_ema=True)
    run("averaged", averaged, {2: ["w-2.weights.h5", "model-2.keras"]})
    keras.mixed_precision.set_global_policy("mixed_float16")
    run("mixed", o.SGD(0.1, momentum=0.9), {2: ["model-2.keras", "model-2.h5"]})
