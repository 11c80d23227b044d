"""Makes tests/golden/paddle_graphs: programs of paddle.jit.save, and what scaling does to them.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install paddlepaddle==3.3.1 setuptools
    python make_paddle_graphs.py

Truth by running: float64, epsilon 1e-30, every weight drawn at random, batch statistics in use. A
tensor is invariant where multiplying it by 0.5, 2 and 7 leaves the outputs as they are (to 1e-8).
Beside it the parameters' own names, which the program uses.
"""

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

HERE = Path(__file__).parent / "paddle_graphs"
HERE.mkdir(exist_ok=True)


class Residual(nn.Layer):
    """Convolutions with batch norm, depthwise, a sum that mixes, other norms, a free layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2D(3, 6, 3, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(6)
        self.deep = nn.Conv2D(6, 6, 3, padding="same", groups=6)
        self.bn2 = nn.BatchNorm2D(6)
        self.left = nn.Conv2D(6, 4, 1, bias_attr=False)
        self.right = nn.Conv2D(6, 4, 1, bias_attr=False)
        self.bn3 = nn.BatchNorm2D(4)
        self.up = nn.Conv2DTranspose(4, 4, 2, stride=2)
        self.group = nn.GroupNorm(2, 4)
        self.dense = nn.Linear(4, 5)
        self.norm = nn.LayerNorm(5)
        self.free = nn.Linear(5, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = F.relu(self.bn1(self.stem(x)))
        x = F.max_pool2d(F.relu(x + self.bn2(self.deep(x))), 2)
        x = self.bn3(self.left(x) + self.right(x))
        x = F.leaky_relu(self.group(self.up(x)))
        x = self.norm(self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return F.softmax(self.head(paddle.tanh(self.free(x))))


class Transformer(nn.Layer):
    """Embedding, attention, normed projections, dense layers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiHeadAttention(8, 2)
        self.query, self.key = nn.Linear(8, 8, bias_attr=False), nn.Linear(8, 8, bias_attr=False)
        self.q_norm, self.k_norm = nn.LayerNorm(8), nn.LayerNorm(8)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 7)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        scores = F.softmax(
            self.q_norm(self.query(y)) @ self.k_norm(self.key(y)).transpose([0, 2, 1])
        )
        x = x + scores @ y
        x = self.norm3(x + self.fc2(F.gelu(self.fc1(x.mean(1, keepdim=True)))))
        return F.log_softmax(self.head(x))


def truth(make, x):
    paddle.set_default_dtype("float64")
    net = make()
    net.train()
    for layer in net.sublayers():
        for name in ("_epsilon", "epsilon"):
            if hasattr(layer, name):
                setattr(layer, name, 1e-30)
    draw = np.random.default_rng(0)
    weights = {n: p for n, p in net.named_parameters() if not p.stop_gradient}
    clean = {n: draw.uniform(0.3, 1, p.shape) * draw.choice([-1, 1], p.shape)
             for n, p in weights.items()}  # fmt: skip

    def run(name="", factor=1.0):
        for n, p in weights.items():
            p.set_value(clean[n] * (factor if n == name else 1.0))
        return net(paddle.to_tensor(x)).numpy()

    base = run()
    found = {
        name: max(np.abs(run(name, k) - base).max() for k in (0.5, 2.0, 7.0))
        < 1e-8 * np.abs(base).max()
        for name in weights
    }
    paddle.set_default_dtype("float32")
    return {name: bool(same) for name, same in found.items()}


said = {}
for make, x, kind in (
    (Residual, np.random.default_rng(1).normal(size=(4, 3, 8, 8)), "float32"),
    (Transformer, np.random.default_rng(1).integers(0, 7, (4, 5)), "int64"),
):
    name = make.__name__.lower()
    same = truth(make, x)
    net = make()
    net.eval()
    own = {p.name: n for n, p in [*net.named_parameters(), *net.named_buffers()]}
    said[name] = {"invariant": same, "names": own}
    with tempfile.TemporaryDirectory() as place:
        spec = paddle.static.InputSpec([None, *x.shape[1:]], kind)
        paddle.jit.save(net, f"{place}/net", input_spec=[spec])
        program = (Path(place) / "net.json").read_bytes()
    (HERE / f"{name}.json.gz").write_bytes(gzip.compress(program, mtime=0))
(HERE / "truth.json").write_text(json.dumps(said, indent=1) + "\n")
