"""The run of reference.npz in MLX's files: mlx 0.32.4 (`pip install "mlx[cpu]==0.32.4"`).

Three folders: weights and optimizer beside one another as safetensors and as .npz, and both in one
GGUF file, as `mx.save_*` writes them. Run once; the result is kept in the repository.
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, (3, 2), padding=1, bias=False)
        self.bn1 = nn.BatchNorm(6)
        self.conv2 = nn.Conv2d(6, 8, (3, 2), padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm(8)
        self.head = nn.Linear(8, 10)


def ohwi(array):
    return mx.array(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)


for step in STEPS:
    weights, momentum = state(step)
    net = Net()
    net.load_weights([(name, ohwi(array)) for name, array in weights.items()])
    sgd = optim.SGD(learning_rate(step), momentum=MOMENTUM, weight_decay=DECAY)
    sgd.init(net.trainable_parameters())
    held = dict(tree_flatten(sgd.state))
    held |= {f"{name}.v": ohwi(array) for name, array in momentum.items()}
    held["step"] = mx.array(step, mx.uint64)
    sgd.state = tree_unflatten(list(held.items()))
    optimizer = dict(tree_flatten(sgd.state))
    for kind in ("mlx_safetensors", "mlx_npz", "mlx_gguf"):
        (HERE / kind).mkdir(exist_ok=True)
    net.save_weights(str(HERE / f"mlx_safetensors/model_{step}.safetensors"))
    mx.save_safetensors(str(HERE / f"mlx_safetensors/optimizer_{step}.safetensors"), optimizer)
    net.save_weights(str(HERE / f"mlx_npz/model_{step}.npz"))
    mx.savez(str(HERE / f"mlx_npz/optimizer_{step}.npz"), **optimizer)
    both = {**dict(tree_flatten(net.parameters())), **optimizer}
    both = {n: a.astype(mx.float32) if a.dtype == mx.uint64 else a for n, a in both.items()}
    mx.save_gguf(str(HERE / f"mlx_gguf/model_{step}.gguf"), both)
