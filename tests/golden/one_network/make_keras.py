"""The run of reference.npz in Keras' and TensorFlow's files: keras 3.15.1, tensorflow 2.21.0.

`keras_v3` (.keras), `keras_h5` (.h5 with the optimizer), `keras_weights` (.weights.h5),
`tensorflow_keras` (tf.train.Checkpoint), `tensorflow_1` (the v1 saver with its MomentumOptimizer's
slots), `tensorflow_saved_model` (tf.saved_model.save of a tf.Module, weights alone). Run once; the
result is kept in the repository. Keras keeps v = m v - lr g.
"""

import os
import shutil

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state

NAMES = {
    "conv1.weight": "conv1/kernel", "conv2.weight": "conv2/kernel", "head.weight": "head/kernel",
    "head.bias": "head/bias",
}  # fmt: skip
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
        "running_var": "moving_variance"}  # fmt: skip


def keras_name(name):
    layer, _, leaf = name.partition(".")
    return NAMES.get(name) or f"{layer}/{NORM[leaf]}"


def keras_layout(array):
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def decayed(*names):
    """The run's decay as Keras has it: m v - lr (g + decay w) is that of half its square."""
    return {f"{name}_regularizer": keras.regularizers.L2(DECAY / 2) for name in names}


def norm(name):
    return layers.BatchNormalization(name=name, epsilon=1e-5, **decayed("gamma", "beta"))


def network():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(6, (3, 2), use_bias=False, name="conv1", **decayed("kernel"))(x)
    x = layers.ReLU()(norm("bn1")(x))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(8, (3, 2), groups=2, use_bias=False, name="conv2", **decayed("kernel"))(x)
    x = layers.ReLU()(norm("bn2")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="head", **decayed("kernel", "bias"))(x))


def save_keras():
    for kind in ("keras_v3", "keras_h5", "keras_weights", "tensorflow_keras"):
        (HERE / kind).mkdir(exist_ok=True)
    for step in STEPS:
        keras.backend.clear_session()
        model = network()
        sgd = keras.optimizers.SGD(0.0625, MOMENTUM, name="sgd")
        model.compile(optimizer=sgd, loss="mse")
        sgd.build(model.trainable_variables)
        weights, buffers = (
            {keras_name(n): keras_layout(a) for n, a in d.items()} for d in state(step)
        )
        for variable in model.variables:
            if variable.path in weights:
                variable.assign(weights[variable.path])
        rate = learning_rate(step - 1)
        for variable, slot in zip(model.trainable_variables, sgd.momentums, strict=True):
            slot.assign(np.float32(-rate) * buffers[variable.path])
        sgd.iterations.assign(step)
        sgd.learning_rate = rate
        model.save(HERE / f"keras_v3/model_{step}.keras")
        model.save(HERE / f"keras_h5/model_{step}.h5")
        model.save_weights(HERE / f"keras_weights/model_{step}.weights.h5")
        checkpoint = tf.train.Checkpoint(model=model, optimizer=sgd)
        checkpoint.write(str(HERE / f"tensorflow_keras/ckpt-{step}"))


def save_tensorflow_1():
    folder = HERE / "tensorflow_1"
    folder.mkdir(exist_ok=True)
    for step in STEPS:
        weights, buffers = (
            {keras_name(n): keras_layout(a) for n, a in d.items()} for d in state(step)
        )
        with tf.Graph().as_default():
            for name, array in weights.items():
                tf.compat.v1.get_variable(name, initializer=array)
            for name, array in buffers.items():
                tf.compat.v1.get_variable(f"{name}/Momentum", initializer=array)
            tf.compat.v1.get_variable("global_step", initializer=np.int64(step))
            with tf.compat.v1.Session() as session:
                session.run(tf.compat.v1.global_variables_initializer())
                saver = tf.compat.v1.train.Saver()
                saver.save(session, str(folder / "model.ckpt"), step, write_meta_graph=False)
    (folder / "checkpoint").unlink()


class Network(tf.Module):
    """The network in TensorFlow's own operators."""

    def __init__(self, arrays):
        super().__init__()
        self.held = [
            tf.Variable(array, name=name, trainable="moving" not in name)
            for name, array in arrays.items()
        ]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32)])
    def __call__(self, x):
        v = {variable.name.removesuffix(":0"): variable for variable in self.held}
        for at in "12":
            norm = [v[f"bn{at}/{leaf}"] for leaf in
                    ("moving_mean", "moving_variance", "beta", "gamma")]  # fmt: skip
            x = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = tf.nn.conv2d(x, v[f"conv{at}/kernel"], 1, "VALID")
            x = tf.nn.relu(tf.nn.batch_normalization(x, *norm, 1e-5))
        return tf.reduce_mean(x, (1, 2)) @ v["head/kernel"] + v["head/bias"]


def save_saved_model():
    for step in STEPS:
        folder = HERE / f"tensorflow_saved_model/step_{step}"
        weights = {keras_name(n): keras_layout(a) for n, a in state(step)[0].items()}
        tf.saved_model.save(Network(weights), str(folder))
        (folder / "fingerprint.pb").unlink()
        shutil.rmtree(folder / "assets", ignore_errors=True)


if __name__ == "__main__":
    save_keras()
    save_tensorflow_1()
    save_saved_model()
