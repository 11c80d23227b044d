"""Makes tests/golden/orbax with the real framework: orbax-checkpoint 0.12.8 with jax 0.10.2.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install jax==0.10.2 flax==0.12.8 optax==0.2.8 orbax-checkpoint==0.12.8
    python make_orbax.py

Beside each run lies what it held as plain arrays before it was saved (expected.npz, keys with
slashes behind the step).
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tensorstore as ts
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict

# Orbax writes the place of a checkpoint into it: one that says nothing.
HERE = Path(tempfile.gettempdir()) / "runs"
shutil.rmtree(HERE, ignore_errors=True)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(use_running_average=False, name="bn1")(x)
        return nn.Dense(3, name="head", param_dtype=jnp.bfloat16)(nn.relu(x).mean((1, 2)))


class State(TrainState):
    batch_stats: dict


def start(optimizer):
    net = Net()
    variables = net.init(jax.random.key(0), jnp.zeros((2, 5, 5, 4)))
    return State.create(apply_fn=net.apply, tx=optimizer, **variables)


def step(state, key):
    x = jax.random.normal(key, (8, 5, 5, 4))

    def loss(p):
        held = {"params": p, "batch_stats": state.batch_stats}
        y, new = state.apply_fn(held, x, mutable=["batch_stats"])
        return (y.astype(jnp.float32) ** 2).mean(), new["batch_stats"]

    grads, statistics = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=statistics)


def plain(state, number):
    flat = flatten_dict(flax.serialization.to_state_dict(state), sep="/")
    return {
        f"{number}/{k}": np.asarray(v, np.float32) for k, v in flat.items() if hasattr(v, "shape")
    }


def run(name, optimizer, saves, save):
    folder = HERE / name
    folder.mkdir(parents=True)
    state, expected = start(optimizer), {}
    for number in range(1, max(saves) + 1):
        state = step(state, jax.random.key(number))
        if number in saves:
            save(folder.resolve(), number, state)
            expected |= plain(state, number)
    np.savez_compressed(folder / "expected.npz", **expected)


def layout(**how):
    def save(folder, number, state):
        handler = ocp.PyTreeCheckpointHandler(**how)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder / f"checkpoint_{number}", state)

    return save


def manager(folder, number, state):
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder, options=options) as held:
        items = {"state": ocp.args.StandardSave(state), "extra": ocp.args.JsonSave({"seed": 7})}
        held.save(number, args=ocp.args.Composite(**items))


def sharded(folder, number, state):
    """The head's kernel over two devices, in chunks of its own and cut further."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, None, "x"))
    kernel = jax.device_put(state.params["conv1"]["kernel"], spread)
    params = {**state.params, "conv1": {"kernel": kernel}}
    layout(use_ocdbt=True)(folder, number, state.replace(params=params))


def sgd():
    return optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)


run("ocdbt_zarr2", sgd(), (2, 4), layout(use_ocdbt=True))
run("ocdbt_zarr3", sgd(), (2,), layout(use_ocdbt=True, use_zarr3=True))
run("zarr2", sgd(), (2,), layout(use_ocdbt=False))
run("zarr3", sgd(), (2,), layout(use_ocdbt=False, use_zarr3=True))
run("manager", optax.adamw(1e-3, weight_decay=0.05), (2, 4), manager)
run("sharded", optax.sgd(0.1, momentum=0.9), (2,), sharded)

# A tree of several levels with values of every size, as only large checkpoints have.
store = ts.KvStore.open(
    {
        "driver": "ocdbt",
        "base": f"file://{HERE}/database/",
        "config": {"max_decoded_node_bytes": 300, "max_inline_value_bytes": 20},
    }
).result()
transaction = ts.Transaction()
values = {f"folder/key{n:03d}": f"{n} " * (n % 17 + 1) for n in range(150)}
for key, value in values.items():
    store.with_transaction(transaction)[key] = value.encode()
transaction.commit_sync()
(HERE / "database" / "expected.json").write_text(json.dumps(values, indent=0) + "\n")

END = Path(__file__).parent / "orbax"
shutil.rmtree(END, ignore_errors=True)
shutil.move(HERE, END)
