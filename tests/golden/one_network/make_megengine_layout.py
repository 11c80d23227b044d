"""The run of reference.npz in MegEngine's layout, as its documentation gives it.

Not written by MegEngine, which has no release for Python 3.11: `megengine.save` pickles a dict of
NumPy arrays; batch norms keep (1, C, 1, 1), the kernel of a grouped convolution is (groups, outputs
per group, inputs per group, height, width), the optimizer's state has torch's form. Needs NumPy.
"""

import pickle

from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state


def megengine_layout(name, array):
    if name.startswith("bn"):
        return array.reshape(1, -1, 1, 1)
    return array.reshape(2, 4, 3, 3, 2) if name == "conv2.weight" else array


(HERE / "megengine_layout").mkdir(exist_ok=True)
for step in STEPS:
    weights, buffers = state(step)
    group = {"lr": learning_rate(step), "momentum": MOMENTUM, "weight_decay": DECAY}
    slots = [{"momentum_buffer": megengine_layout(n, a)} for n, a in buffers.items()]
    content = {
        "epoch": step // 20,
        "step": step,
        "state_dict": {n: megengine_layout(n, a) for n, a in weights.items()},
        "optimizer": {
            "param_groups": [{**group, "params": list(range(len(slots)))}],
            "state": dict(enumerate(slots)),
        },
    }
    with open(HERE / f"megengine_layout/checkpoint_{step}.pkl", "wb") as file:
        pickle.dump(content, file, protocol=4)
