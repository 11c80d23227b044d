"""What reference.npz holds, for the scripts beside it: NumPy alone."""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
STEPS = (40, 80, 120, 160, 161, 200)
MOMENTUM, DECAY, CUT = 0.9, 5e-3, 120


def learning_rate(step):
    """Rate of the update that leads from `step` to `step + 1`."""
    return 0.0625 if step < CUT else 0.015625


def state(step):
    """Weights and momentum buffers at a step, by torch's names, in torch's layout."""
    with np.load(HERE / "reference.npz") as archive:
        return tuple(
            {
                key.rpartition("/")[2]: archive[key]
                for key in archive.files
                if key.startswith(f"{step}/{kind}/")
            }
            for kind in ("weights", "momentum")
        )
