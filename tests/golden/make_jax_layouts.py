"""Makes tests/golden/jax_layouts with the real frameworks.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install jax==0.10.2 flax==0.12.8 optax==0.2.8 orbax-checkpoint==0.12.8
    python make_jax_layouts.py

States under other names than Flax' TrainState gives them, settings by part of the network, NNX with
its optimizer, weights alone. Every number is drawn at random; beside each checkpoint lies what was
saved (`NAME.expected.npz`: "weight NAME", "first_moment NAME" ...).
"""

import shutil
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx, serialization
from flax.traverse_util import flatten_dict

HERE = Path(__file__).parent / "jax_layouts"
# Orbax writes the place of a checkpoint into it: one that says nothing.
PLACE = Path(tempfile.gettempdir()) / "runs"
DRAW = np.random.default_rng(0)
SLOTS = {"trace": "momentum", "mu": "first_moment", "nu": "second_moment"}
KEPT = ("learning_rate", "momentum", "weight_decay", "'b1'", "'b2'", "eps")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (2, 2), use_bias=False, name="conv")(x)
        x = nn.BatchNorm(use_running_average=False, name="norm")(x)
        return nn.Dense(2, name="head")(x.mean((1, 2)))


class Modules(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)


def drawn(tree):
    def one(path, value):
        name = jax.tree_util.keystr(path)
        if "hyperparams" in name and any(word in name for word in KEPT):
            return value
        if "count" in name or name.endswith(("step']", "['step'].value")):
            return jnp.asarray(7, value.dtype)
        return jnp.asarray(DRAW.standard_normal(value.shape), value.dtype)

    return jax.tree_util.tree_map_with_path(one, tree)


def expected(weights, state):
    found = {f"weight {k}": np.asarray(v) for k, v in flatten_dict(weights, sep="/").items()}
    for path, value in jax.tree_util.tree_flatten_with_path(state)[0]:
        keys = [str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", "")))) for p in path]
        for name, slot in SLOTS.items():
            if name in keys:
                key = "/".join(keys[keys.index(name) + 1 :])
                found[f"{slot} {key}"] = np.asarray(value)
    return found


def by_part(path, _):
    return "plain" if "norm" in jax.tree_util.keystr(path) else "adamw"


def save(name, tree, weights, state):
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(PLACE / name / "7", tree)
    checkpointer.wait_until_finished()
    shutil.copytree(PLACE / name, HERE / name)
    np.savez_compressed(HERE / f"{name}.expected.npz", **expected(weights, state))


def main():
    shutil.rmtree(PLACE, ignore_errors=True)
    HERE.mkdir(exist_ok=True)
    parts = {
        "adamw": optax.inject_hyperparams(optax.adamw)(0.125, weight_decay=0.0625),
        "plain": optax.inject_hyperparams(optax.sgd)(0.25),
    }
    held = Net().init(jax.random.key(0), jnp.zeros((1, 3, 3, 2)))
    optimizer = optax.multi_transform(parts, lambda p: jax.tree_util.tree_map_with_path(by_part, p))
    held, state = drawn((held, optimizer.init(held["params"])))
    weights = {**held["params"], "statistics": held["batch_stats"]}
    save("parts", {"model": held, "optimizer": state, "step": np.int64(7)}, weights, state)

    model = Modules(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.125), wrt=nnx.Param)
    net, state = drawn((nnx.state(model), nnx.state(optimizer)))
    pure = nnx.to_pure_dict(net)
    save("modules", {"model": net, "opt": state}, pure, nnx.to_pure_dict(state))

    linear = drawn({"linear": {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, "scale": jnp.zeros(())})
    state = drawn(optax.inject_hyperparams(optax.sgd)(0.25, momentum=0.5).init(linear))
    tree = {"params": linear, "opt_state": serialization.to_state_dict(state), "step": 7}
    (HERE / "haiku.msgpack").write_bytes(serialization.to_bytes(tree))
    np.savez_compressed(HERE / "haiku.msgpack.expected.npz", **expected(linear, state))


main()
