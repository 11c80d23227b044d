"""Makes tests/golden/tensorflow with the real framework: tensorflow-cpu 2.21.0 (Keras 3.15.1).

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0
    python make_tensorflow.py

Beside each checkpoint lie its tensors as TensorFlow reads them (expected.npz, by key).
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "tensorflow"


def keep_expected(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    keys = [k for k in reader.get_variable_to_shape_map() if not k.startswith("_CHECKPOINTABLE")]
    np.savez(f"{prefix}.expected.npz", **{k.replace("/", "|"): reader.get_tensor(k) for k in keys})


def network():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5, 5, 4)),
            layers.Conv2D(6, (3, 2), use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.DepthwiseConv2D((2, 2), name="depthwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )


def keras_3(name, optimizer, saves):
    net = network()
    net.compile(optimizer, "mse")
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(8, 5, 5, 4)), draw.normal(size=(8, 3))
    checkpoint = tf.train.Checkpoint(model=net, optimizer=net.optimizer)
    for step in range(1, max(saves) + 1):
        net.fit(x, y, epochs=1, batch_size=8, verbose=0)
        if step in saves:
            prefix = HERE / name / f"ckpt-{step}"
            checkpoint.write(str(prefix))
            keep_expected(prefix)


def tf_1():
    v1 = tf.compat.v1
    for name, make in (
        ("momentum", lambda: v1.train.MomentumOptimizer(0.1, 0.9)),
        ("adam", lambda: v1.train.AdamOptimizer(1e-3)),
    ):
        with tf.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(0)
            w = v1.get_variable("conv1/kernel", (3, 3, 2, 4))
            gamma = v1.get_variable("bn1/gamma", (4,), initializer=v1.ones_initializer())
            step = v1.train.get_or_create_global_step()
            x = tf.random.stateless_normal((2, 6, 6, 2), (1, 2))
            loss = tf.reduce_mean(tf.square(tf.nn.conv2d(x, w, 1, "VALID") * gamma + 0.3))
            train = make().minimize(loss, global_step=step)
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver()
            for _ in range(3):
                session.run(train)
            prefix = HERE / f"tf1_{name}" / "model.ckpt"
            saver.save(session, str(prefix), global_step=step, write_meta_graph=False)
            keep_expected(f"{prefix}-3")


for sub in ("adam", "sgd", "tf1_momentum", "tf1_adam"):
    (HERE / sub).mkdir(parents=True, exist_ok=True)
keras_3("adam", keras.optimizers.Adam(1e-3), (2, 4))
keras_3("sgd", keras.optimizers.SGD(0.1, momentum=0.9), (3,))
tf_1()
