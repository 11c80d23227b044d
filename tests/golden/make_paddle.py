"""Makes tests/golden/paddle with the real framework: paddlepaddle 3.3.1 (needs setuptools).

Run once, in an environment of its own, from this folder; the result is kept in the repository.
AdamW after three updates, the same weights as bfloat16, and what the arrays are (expected.npz).
"""

from pathlib import Path

import numpy as np
import paddle
from paddle import nn

HERE = Path(__file__).parent / "paddle"
HERE.mkdir(exist_ok=True)
paddle.seed(0)
net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6))
adam = paddle.optimizer.AdamW(1e-2, parameters=net.parameters())
for _ in range(3):
    out = net(paddle.to_tensor([[0, 1, 2, 3, 4]]))
    (out.astype("float32") ** 2).mean().backward()
    adam.step()
    adam.clear_grad()
paddle.save(net.state_dict(), str(HERE / "epoch_3.pdparams"))
paddle.save(adam.state_dict(), str(HERE / "epoch_3.pdopt"))
arrays = {f"weights/{n}": p.numpy() for n, p in net.state_dict().items()}
own = {p.name: n for n, p in net.state_dict().items()}
for key, value in adam.state_dict().items():
    if "moment" in key:
        name, _, slot = key.removesuffix("_0").rpartition("_")
        arrays[f"{slot}/{own[name]}"] = value.numpy()
net.to(dtype="bfloat16")
paddle.save(net.state_dict(), str(HERE / "half_4.pdparams"))
arrays |= {f"half/{n}": p.astype("float32").numpy() for n, p in net.state_dict().items()}
np.savez(HERE / "expected.npz", **arrays)
