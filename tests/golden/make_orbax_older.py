"""Makes tests/golden/orbax_older with an older framework: orbax-checkpoint 0.4.8, jax 0.4.25.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install orbax-checkpoint==0.4.8 jax==0.4.25 jaxlib==0.4.25 flax==0.8.0 \\
        optax==0.1.9 'numpy<2' 'scipy<1.13' 'tensorstore<0.1.60' 'ml_dtypes<0.4'
    python make_orbax_older.py

All arrays in one file, as Flax' own examples saved them then; and a manager's items, without
metadata of the step. Beside each lies what was saved ("weight NAME", "momentum NAME").
"""

import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax.training import orbax_utils

HERE = Path(__file__).parent / "orbax_older"
# Orbax writes the place of a checkpoint into it: one that says nothing.
PLACE = Path(tempfile.gettempdir()) / "runs"
shutil.rmtree(PLACE, ignore_errors=True)
HERE.mkdir(exist_ok=True)
draw = np.random.default_rng(0)
weights = {"conv": {"kernel": jnp.zeros((2, 2, 3, 4))}, "head": {"kernel": jnp.zeros((4, 2))}}
state = optax.sgd(0.25, momentum=0.5).init(weights)
weights, state = jax.tree_util.tree_map(
    lambda v: jnp.asarray(draw.standard_normal(v.shape), v.dtype), (weights, state)
)
tree = {"params": weights, "opt_state": state, "step": 7}

one = PLACE / "together" / "7"
ocp.PyTreeCheckpointer().save(one, tree, save_args=orbax_utils.save_args_from_target(tree))
items = {"state": ocp.PyTreeCheckpointer(), "notes": ocp.Checkpointer(ocp.JsonCheckpointHandler())}
manager = ocp.CheckpointManager(PLACE / "items", items)
manager.save(7, {"state": tree, "notes": {"seed": 1}})
found = {f"weight {n}": np.asarray(v["kernel"]) for n, v in weights.items()}
found |= {f"momentum {n}": np.asarray(v["kernel"]) for n, v in state[0].trace.items()}
for name in ("together", "items"):
    shutil.copytree(PLACE / name, HERE / name)
    np.savez_compressed(HERE / f"{name}.expected.npz", **found)
