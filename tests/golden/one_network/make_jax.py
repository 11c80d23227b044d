"""The run of reference.npz in Flax's and Orbax' files: flax 0.12.8, optax 0.2.8, orbax 0.12.8.

`flax` (flax.serialization), `orbax` (orbax.checkpoint, its default layout), and the network's
program (`flax_program.mlir`). Run once; the result is kept in the repository.
"""

import re
import shutil

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state

LEAVES = {"running_mean": "mean", "running_var": "var"}


def flax_layout(arrays, kind):
    tree = {}
    for name, array in arrays.items():
        layer, _, leaf = name.partition(".")
        if ("running" in leaf) != (kind == "batch_stats"):
            continue
        if leaf == "weight":
            leaf = "scale" if layer.startswith("bn") else "kernel"
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        array = array.T if array.ndim == 2 else array
        tree.setdefault(layer, {})[LEAVES.get(leaf, leaf)] = jnp.asarray(array)
    return tree


def optimizer():
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0625, momentum=MOMENTUM)
    return optax.chain(optax.add_decayed_weights(DECAY), sgd)


class Network(nn.Module):
    """The network, for its program."""

    @nn.compact
    def __call__(self, x):
        for at, (width, groups) in enumerate(((6, 1), (8, 2)), start=1):
            how = {"padding": ((1, 1), (1, 1)), "use_bias": False, "feature_group_count": groups}
            x = nn.Conv(width, (3, 2), name=f"conv{at}", **how)(x)
            x = nn.relu(nn.BatchNorm(True, epsilon=1e-5, name=f"bn{at}")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def save_program():
    """The program as text, with the places of its arguments."""
    network, x = Network(), jnp.zeros((2, 8, 8, 1))
    variables = network.init(jax.random.key(0), x)
    lowered = jax.jit(network.apply).lower(variables, x)
    # Places in the code say nothing about the program, and much about the machine.
    text = re.sub(r'"/[^"]*/(?=[^"/]*\.py")', '"', lowered.as_text(debug_info=True))
    (HERE / "flax_program.mlir").write_text(text)


def main():
    for kind in ("flax", "orbax"):
        shutil.rmtree(HERE / kind, ignore_errors=True)
        (HERE / kind).mkdir()
    for step in STEPS:
        weights, buffers = state(step)
        params = flax_layout(weights, "params")
        held = optimizer().init(params)
        decay, inner = held
        trace, *rest = inner.inner_state
        trace = trace._replace(trace=flax_layout(buffers, "params"))
        rates = {**inner.hyperparams, "learning_rate": jnp.asarray(learning_rate(step))}
        inner = inner._replace(hyperparams=rates, inner_state=(trace, *rest))
        tree = {
            "step": step,
            "params": params,
            "batch_stats": flax_layout(weights, "batch_stats"),
            "opt_state": (decay, inner),
        }
        (HERE / f"flax/checkpoint_{step}").write_bytes(flax.serialization.to_bytes(tree))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(HERE / f"orbax/{step}", {**tree, "step": jnp.asarray(step)})


if __name__ == "__main__":
    main()
    save_program()
