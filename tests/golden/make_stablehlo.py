"""Makes tests/golden/stablehlo: programs that JAX lowered, and what scaling does to them.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install jax==0.10.2 flax==0.12.8
    python make_stablehlo.py

Truth by running: float64, epsilon 1e-30, every weight drawn at random, batch statistics in use. A
tensor is invariant where multiplying it by 0.5, 2 and 7 leaves the outputs as they are (to 1e-8).
The programs are lowered in single precision, with the usual epsilons; `residual` with running
statistics and, as `residual_training`, with those of the batch.
"""

import gzip
import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent / "stablehlo"
HERE.mkdir(exist_ok=True)
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


class Residual(nn.Module):
    """Convolutions with batch norm, depthwise, a sum that mixes, layer norm, a free layer."""

    epsilon: float = 1e-5
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        def norm(name):
            return nn.BatchNorm(not train, epsilon=self.epsilon, name=name, dtype=self.dtype)

        def conv(width, size, name, **how):
            return nn.Conv(width, (size, size), name=name, dtype=self.dtype, **how)

        x = nn.relu(norm("bn1")(conv(4, 3, "stem", use_bias=False, strides=2)(x)))
        y = norm("bn2")(conv(4, 3, "deep", feature_group_count=4)(x))
        x = nn.max_pool(nn.relu(x + y), (2, 2), (2, 2))
        left = conv(6, 1, "left", use_bias=False)(x)
        x = norm("bn3")(left + conv(6, 3, "right", padding="VALID", use_bias=False)(jnp.pad(
            x, ((0, 0), (1, 1), (1, 1), (0, 0)))))  # fmt: skip
        x = conv(4, 1, "squeeze")(nn.leaky_relu(x)).mean((1, 2))
        x = nn.Dense(6, name="dense", dtype=self.dtype)(x)
        x = nn.LayerNorm(epsilon=self.epsilon, name="norm", dtype=self.dtype)(x)
        x = jnp.tanh(nn.Dense(5, name="free", dtype=self.dtype)(x))
        return nn.softmax(nn.Dense(3, name="head", dtype=self.dtype)(x))


class Transformer(nn.Module):
    """Attention with and without normed keys, RMS and group norm, embeddings."""

    epsilon: float = 1e-6
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, tokens, train=False):
        how = {"dtype": self.dtype}
        eps = {"epsilon": self.epsilon, **how}
        x = nn.Embed(7, 8, name="embed", **how)(tokens)
        y = nn.LayerNorm(name="ln1", **eps)(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="plain", **how)(y, y)
        y = nn.RMSNorm(name="rms", **eps)(x)
        q = nn.DenseGeneral((2, 4), name="query", use_bias=False, **how)(y)
        k = nn.DenseGeneral((2, 4), name="key", use_bias=False, **how)(y)
        q, k = nn.LayerNorm(name="q_norm", **eps)(q), nn.LayerNorm(name="k_norm", **eps)(k)
        scores = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        values = nn.DenseGeneral((2, 4), name="value", **how)(y)
        y = jnp.einsum("bhqk,bkhd->bqhd", scores, values)
        x = x + nn.DenseGeneral(8, (-2, -1), name="out", **how)(y)
        y = nn.gelu(nn.Dense(12, name="fc1", **how)(nn.LayerNorm(name="ln2", **eps)(x)))
        x = nn.GroupNorm(2, name="group", **eps)(x + nn.Dense(8, name="fc2", **how)(y))
        return nn.log_softmax(nn.Dense(7, name="head", **how)(x))


def flat(tree, path=()):
    for name, item in tree.items():
        yield from flat(item, (*path, name)) if isinstance(item, dict) else [((*path, name), item)]


def nested(items):
    root = {}
    for path, value in items.items():
        at = root
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
    return root


def truth(network, variables, x):
    draw = np.random.default_rng(0)
    clean = {path: draw.uniform(0.3, 1, v.shape) * draw.choice([-1, 1], v.shape)
             for path, v in flat(variables["params"])}  # fmt: skip
    rest = {k: v for k, v in variables.items() if k != "params"}

    def run(weights):
        given = {"params": nested(weights), **rest}
        return np.asarray(network.apply(given, x, True, mutable=["batch_stats"])[0])

    base = run(clean)
    found = {}
    for path in clean:
        changes = [np.abs(run({**clean, path: clean[path] * k}) - base).max() for k in (0.5, 2, 7)]
        name = ".".join((*path[:-1], LEAVES.get(path[-1], path[-1])))
        found[name] = bool(max(changes) < 1e-8 * np.abs(base).max())
    return found


said = {}
for name, make, x in (
    ("residual", Residual, np.random.default_rng(1).normal(size=(4, 16, 16, 3))),
    ("transformer", Transformer, np.random.default_rng(1).integers(0, 7, (4, 5))),
):
    jax.config.update("jax_enable_x64", True)
    exact = make(epsilon=1e-30, dtype=jnp.float64)
    said[name] = truth(exact, exact.init(jax.random.key(0), x), x)
    jax.config.update("jax_enable_x64", False)
    network, x = make(), jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else jnp.int32)
    variables = network.init(jax.random.key(0), x)
    for mode, train in (("", False), ("_training", True)):
        if train and "batch_stats" not in variables:
            continue

        def forward(variables, x, train=train):
            return network.apply(variables, x, train, mutable=["batch_stats"] if train else False)

        lowered = jax.jit(forward).lower(variables, x)
        text = lowered.as_text(debug_info=True)
        text = re.sub(r'"/[^"\s]*/([\w.-]+\.py)"', r'"\1"', text)  # no folders of this machine
        (HERE / f"{name}{mode}.mlir.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
(HERE / "truth.json").write_text(json.dumps(said, indent=1) + "\n")
