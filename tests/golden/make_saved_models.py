"""Makes tests/golden/saved_models: small networks as SavedModels, by TensorFlow and Keras.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0
    python make_saved_models.py keras
    python make_saved_models.py tf_keras

The networks and the truth about them are those of make_keras_graphs.py (keras_graphs, by name);
weights are set to zero, which no graph depends on, so that the archive stays small. `module` is a
tf.Module in TensorFlow's own operators; its truth lies beside it, found by the same rescaling.
"""

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import make_keras_graphs as graphs
import numpy as np
import tensorflow as tf

WHICH = sys.argv[1]
HERE = Path(__file__).parent / "saved_models"
HERE.mkdir(exist_ok=True)
PARTS = (
    "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001",
)  # fmt: skip


def saved(make, folder):
    graphs.keras.utils.set_random_seed(0)
    graphs.keras.backend.clear_session()
    model = graphs.keras.Model(*make(), name=make.__name__)
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))
    if WHICH == "keras":
        model.export(folder, verbose=False)
    else:
        model.save(folder)


class Module(tf.Module):
    """Operators that Keras' layers do not write."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(0)
        for name, shape in {
            "stem": (3, 3, 3, 4), "gain": (4,), "shift": (4,), "deep": (3, 3, 4, 2), "mix": (8, 6),
            "mix_bias": (6,), "rms": (6,), "cosine": (5, 6), "free": (6, 5), "late": (5, 3),
            "late_bias": (3,), "left": (5, 4), "right": (5, 4), "out": (4, 2),
        }.items():  # fmt: skip
            setattr(self, name, tf.Variable(draw.normal(size=shape), name=name))
        self.moving_mean = tf.Variable(np.zeros(4), trainable=False, name="moving_mean")
        self.moving_variance = tf.Variable(np.ones(4), trainable=False, name="moving_variance")

    def network(self, x, batch_statistics):
        nn = tf.nn
        x = nn.conv2d(x, self.stem, 1, "SAME")
        if batch_statistics:
            mean, variance = nn.moments(x, (0, 1, 2))
        else:
            mean, variance = self.moving_mean, self.moving_variance
        x = nn.relu(nn.batch_normalization(x, mean, variance, self.shift, self.gain, 1e-30))
        x = nn.depthwise_conv2d(x, self.deep, (1, 2, 2, 1), "SAME")
        x = nn.relu(tf.reduce_max(x, (1, 2)))
        x = nn.bias_add(tf.matmul(x, self.mix), self.mix_bias)
        x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-30) * self.rms
        scores = tf.matmul(x, nn.l2_normalize(self.cosine, 1, 1e-30), transpose_b=True)
        x = tf.tanh(scores) + tf.matmul(x, self.free)
        y = nn.softmax(tf.matmul(x, self.late) + self.late_bias)
        # A sum of two branches in front of a norm: neither may be scaled without the other.
        z = tf.matmul(x, self.left) + tf.abs(tf.matmul(x, self.right))
        z = (z - tf.reduce_mean(z, -1, keepdims=True)) / tf.math.reduce_std(z, -1, keepdims=True)
        return tf.concat([y, tf.einsum("bi,io->bo", z, self.out)], -1)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float64)])
    def __call__(self, x):
        return self.network(x, False)


def module_truth(module):
    draw = np.random.default_rng(1)
    variables = {v.name.removesuffix(":0"): v for v in module.trainable_variables}
    clean = {n: draw.uniform(0.3, 1, v.shape) * draw.choice([-1, 1], v.shape)
             for n, v in variables.items()}  # fmt: skip
    x = draw.normal(size=(4, 8, 8, 3))

    def run(**edits):
        for name, variable in variables.items():
            variable.assign(clean[name] * edits.get(name, 1.0))
        return module.network(x, True).numpy()

    base = run()
    same = {
        name: all(np.abs(run(**{name: k}) - base).max() < 1e-8 * np.abs(base).max()
                  for k in (0.5, 2.0, 7.0))
        for name in variables
    }  # fmt: skip
    for variable in variables.values():
        variable.assign(np.zeros(variable.shape))
    return {name: bool(holds) for name, holds in same.items()}


with tempfile.TemporaryDirectory() as place, tarfile.open(HERE / f"{WHICH}.tar.xz", "w:xz") as tar:

    def add(name, folder):
        for part in PARTS:
            data = (folder / part).read_bytes()
            info = tarfile.TarInfo(f"{name}/{part}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    for make in graphs.networks:
        saved(make, f"{place}/{make.__name__}")
        add(make.__name__, Path(place) / make.__name__)
    if WHICH == "keras":
        module = Module()
        (HERE / "module.json").write_text(json.dumps(module_truth(module), indent=1) + "\n")
        tf.saved_model.save(module, f"{place}/module")
        add("module", Path(place) / "module")
