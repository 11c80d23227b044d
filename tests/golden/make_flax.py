"""Makes tests/golden/flax with the real framework: flax 0.12.8, optax 0.2.8, jax 0.10.2.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install jax==0.10.2 flax==0.12.8 optax==0.2.8
    python make_flax.py

Beside each checkpoint lies what it holds as plain arrays (expected.npz, keys with dots).
"""

from pathlib import Path

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

HERE = Path(__file__).parent / "flax"


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 2), use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(use_running_average=False, name="bn1")(x)
        x = nn.Conv(8, (3, 3), feature_group_count=2, name="conv2")(nn.relu(x))
        x = nn.BatchNorm(use_running_average=False, name="bn2")(x)
        return nn.Dense(3, name="head", param_dtype=jnp.bfloat16)(x.mean((1, 2)))


def train(name, optimizer, steps):
    net = Net()
    keys = jax.random.split(jax.random.key(0), steps + 1)
    variables = net.init(keys[0], jnp.zeros((2, 5, 5, 4)))
    params, statistics = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    for key in keys[1:]:
        x = jax.random.normal(key, (8, 5, 5, 4))

        def loss(p, x=x, statistics=statistics):
            y, new = net.apply({"params": p, "batch_stats": statistics}, x, mutable=["batch_stats"])
            return (y.astype(jnp.float32) ** 2).mean(), new["batch_stats"]

        grads, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    tree = {"step": steps, "params": params, "batch_stats": statistics, "opt_state": state}
    HERE.mkdir(exist_ok=True)
    (HERE / f"{name}_{steps}").write_bytes(flax.serialization.to_bytes(tree))
    plain = flax.serialization.to_state_dict(tree)
    flat = flatten_dict(plain, sep="/")
    arrays = {k: np.asarray(v, np.float32) for k, v in flat.items() if np.ndim(v) or "count" in k}
    np.savez(HERE / f"{name}_{steps}.expected.npz", **arrays)


for steps in (2, 4):
    train("sgd", optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9), steps)
train("adamw", optax.adamw(1e-3, weight_decay=0.05), 3)
# The same weights with arrays cut into chunks, as Flax does above a gigabyte.
flax.serialization.MAX_CHUNK_SIZE = 100
train("chunked", optax.sgd(0.1, momentum=0.9), 2)
