"""Makes tests/golden/mxnet_layouts with the real framework: mxnet 1.9.1 (needs numpy 1.23).

Run once, in an environment of its own, from this folder; the result is kept in the repository.
Nesterov's momentum of Gluon's trainer; what MXNet holds lies in nag.expected.npz, the momentum
v = m v - lr g divided by minus the rate in float64.
"""

from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

HERE = Path(__file__).parent / "mxnet_layouts"
HERE.mkdir(exist_ok=True)
net = gluon.nn.HybridSequential(prefix="net_")
with net.name_scope():
    net.add(gluon.nn.Conv2D(3, 2, in_channels=2, use_bias=False))
    net.add(gluon.nn.BatchNorm(in_channels=3), gluon.nn.Flatten(), gluon.nn.Dense(2, in_units=12))
net.initialize(mx.init.Xavier())
rule = {"learning_rate": 0.25, "momentum": 0.5, "wd": 0.125}
trainer = gluon.Trainer(net.collect_params(), "nag", rule)
for _ in range(3):
    with autograd.record():
        loss = (net(mx.nd.random.normal(shape=(2, 2, 3, 3))) ** 2).mean()
    loss.backward()
    trainer.step(1)
net.collect_params().save(str(HERE / "nag-0003.params"))
trainer.save_states(str(HERE / "nag-0003.states"))
found = {f"weight {k}": p.data().asnumpy() for k, p in net.collect_params().items()}
for number, state in trainer._updaters[0].states.items():
    name = trainer._params[number].name
    found[f"momentum {name}"] = state.asnumpy().astype("float64") / -0.25
np.savez_compressed(HERE / "nag.expected.npz", **found)
