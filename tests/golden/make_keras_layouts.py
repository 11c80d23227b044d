"""Makes tests/golden/keras_layouts with the real frameworks: tensorflow-cpu 2.21.0, Keras 3.15.1.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0 && python -m pip install --no-deps tf_keras==2.21.0
    python make_keras_layouts.py && TF_USE_LEGACY_KERAS=1 python make_keras_layouts.py

Nested models, attention, recurrent layers in both directions, models written as a class, bfloat16
and shards. Every weight and every buffer is drawn at random, so that no two are the same; beside
each checkpoint lies what the framework holds at that moment (`NAME.expected.npz`: "weight NAME",
"first_moment NAME" ...; bfloat16 as its bits).
"""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
if LEGACY:
    import tf_keras as keras
else:
    import keras

layers, optimizers = keras.layers, keras.optimizers
HERE = Path(__file__).parent / "keras_layouts"
DRAW = np.random.default_rng(0)
STEPS = 7


def array(variable):
    value = np.asarray(variable)
    return value.view("uint16") if value.dtype.name == "bfloat16" else value


def name_of(variable):
    return variable.name if LEGACY else variable.path


def nested():
    x = given = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 4, name="table")(x)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.Bidirectional(layers.GRU(3, name="gru"), name="both")(x)
    inner = [keras.Input((6,)), layers.Dense(6, name="a"), layers.Dense(6, name="b")]
    x = keras.Sequential(inner, name="inside")(x)
    return keras.Model(given, layers.Dense(2, name="head")(x)), np.zeros((2, 4), "int32")


def plain(dtype=None):
    stack = [keras.Input((3,)), layers.Dense(3, dtype=dtype), layers.Dense(3, dtype=dtype)]
    return keras.Sequential([*stack, layers.Dense(2, dtype=dtype)]), np.zeros((2, 3), "float32")


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.second, self.norm = layers.Dense(3), layers.BatchNormalization()
        self.first = layers.Dense(3, use_bias=False)

    def call(self, x):
        return self.first(self.norm(self.second(x)))


class Written(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = Block(), Block()
        self.own = self.add_weight(shape=(3,), name="own")

    def call(self, x):
        return self.two(self.one(x)) * self.own


def written():
    return Written(), np.zeros((2, 3), "float32")


def trained(make, optimizer):
    keras.backend.clear_session()
    model, x = make()
    model.compile(optimizer, "mse")
    model.train_on_batch(x, np.zeros(model(x).shape, "float32"))
    counts = [optimizer.iterations, optimizer._learning_rate]
    for variable in [*model.variables, *(getattr(optimizer, "variables", None) or [])]:
        kind = array(variable).dtype.kind
        if all(variable is not c for c in counts) and (kind == "f" or "bf" in str(variable.dtype)):
            variable.assign(DRAW.standard_normal(variable.shape))
    optimizer.iterations.assign(STEPS)
    return model


def keep(path, model, optimizer):
    found = {f"weight {name_of(v)}": array(v) for v in model.variables if "seed" not in name_of(v)}
    lists = {"momentums": "momentum", "_momentums": "first_moment", "_velocities": "second_moment"}
    lists["_velocity_hats"] = "max_second_moment"
    for attribute, slot in lists.items():
        held = getattr(optimizer, attribute, None) or []
        for weight, buffer in zip(model.trainable_variables, held):
            value = array(buffer)
            if slot == "momentum":  # v = m v - lr g, in torch's convention
                value = value.astype("float64") / -np.float64(np.float32(0.25))
            found[f"{slot} {name_of(weight)}"] = value
    np.savez_compressed(f"{path}.expected.npz", **found)


def save(name, make, optimizer, write):
    model = trained(make, optimizer)
    write(model, str(HERE / name))
    keep(HERE / name, model, optimizer)


def checkpoint(model, path):
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(path)


def whole(model, path):
    model.save(path)


def main():
    HERE.mkdir(exist_ok=True)
    adamw = optimizers.AdamW(0.125, weight_decay=0.0625)
    if LEGACY:
        save("legacy_nested.keras", nested, optimizers.SGD(0.25, momentum=0.5), whole)
        save("legacy_plain_ckpt", plain, adamw, checkpoint)
        return
    save("nested.keras", nested, adamw, whole)
    amsgrad = optimizers.Adam(0.125, amsgrad=True)
    save("written_ckpt", written, amsgrad, checkpoint)
    save("written.h5", written, optimizers.SGD(0.25, momentum=0.5), whole)
    save("bfloat16.h5", lambda: plain("bfloat16"), optimizers.Adam(0.125), whole)

    def shards(model, path):
        model.save_weights(path, max_shard_size=1e-7)

    save("shards.weights.json", plain, optimizers.AdamW(0.125), shards)

    def weights(model, path):
        model.save_weights(path)

    save("plain.weights.h5", plain, optimizers.AdamW(0.125), weights)
    save("exported", plain, optimizers.SGD(0.25), lambda model, path: model.export(path))


main()
