"""The run of reference.npz in MXNet's files: mxnet 1.9.1 with numpy 1.23.5, on Python 3.11.

`mxnet_gluon`: parameters under their full names (`collect_params().save`) with the trainer's
states beside them; `mxnet_module`: Module's symbol, .params and .states, whose optimizer names its
parameters. Run once; the result is kept in the repository.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state

GLUON = {"bn": {"weight": "gamma", "bias": "beta"}}
MODULE = {"running_mean": "moving_mean", "running_var": "moving_var"}


class Net(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv1 = nn.Conv2D(
                6, (3, 2), padding=(1, 1), use_bias=False, in_channels=1, prefix="conv1_"
            )
            self.bn1 = nn.BatchNorm(in_channels=6, prefix="bn1_")
            self.conv2 = nn.Conv2D(
                8, (3, 2), padding=(1, 1), groups=2, use_bias=False, in_channels=6, prefix="conv2_"
            )
            self.bn2 = nn.BatchNorm(in_channels=8, prefix="bn2_")
            self.head = nn.Dense(10, in_units=8, prefix="head_")

    def hybrid_forward(self, F, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.head(F.mean(x, axis=(2, 3)))


def renamed(name, statistics):
    layer, _, leaf = name.partition(".")
    if layer.startswith("bn"):
        leaf = GLUON["bn"].get(leaf, leaf)
    return f"{layer}_{statistics.get(leaf, leaf)}"


def slot(buffer, step):
    """MXNet keeps v = m v - lr g: the buffer times the negative rate of the last update."""
    return mx.nd.array(np.float32(-learning_rate(step - 1)) * buffer)


def save_gluon():
    folder = HERE / "mxnet_gluon"
    folder.mkdir(exist_ok=True)
    net = Net(prefix="net_")
    net.initialize()
    settings = {"learning_rate": 0.0625, "momentum": MOMENTUM, "wd": DECAY}
    trainer = gluon.Trainer(net.collect_params(), "sgd", settings)
    with autograd.record():
        loss = (net(mx.nd.random.normal(shape=(4, 1, 8, 8))) ** 2).mean()
    loss.backward()
    trainer.step(1)  # makes the slots
    parameters = net.collect_params()
    updater = trainer._updaters[0]
    indices = {parameter.name: index for index, parameter in enumerate(trainer._params)}
    for step in STEPS:
        weights, buffers = state(step)
        for name, array in weights.items():
            parameters[f"net_{renamed(name, {})}"].set_data(mx.nd.array(array))
        for name, array in buffers.items():
            updater.states[indices[f"net_{renamed(name, {})}"]] = slot(array, step)
        trainer.set_learning_rate(learning_rate(step - 1))
        trainer._optimizer.num_update = step
        parameters.save(str(folder / f"net_{step}.params"))
        trainer.save_states(str(folder / f"net_{step}.states"))


def symbol():
    x = mx.sym.Variable("data")
    for name, filters, groups in (("1", 6, 1), ("2", 8, 2)):
        x = mx.sym.Convolution(
            x, name=f"conv{name}", kernel=(3, 2), pad=(1, 1), num_filter=filters,
            num_group=groups, no_bias=True,
        )  # fmt: skip
        x = mx.sym.BatchNorm(x, name=f"bn{name}", fix_gamma=False, eps=1e-5)
        x = mx.sym.Activation(x, act_type="relu")
    x = mx.sym.mean(x, axis=(2, 3))
    return mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(x, name="head", num_hidden=10), name="softmax"
    )


def save_module():
    folder = HERE / "mxnet_module"
    folder.mkdir(exist_ok=True)
    module = mx.mod.Module(symbol())
    module.bind([("data", (4, 1, 8, 8))], [("softmax_label", (4,))])
    module.init_params()
    settings = (("learning_rate", 0.0625), ("momentum", MOMENTUM), ("wd", DECAY))
    module.init_optimizer(optimizer="sgd", optimizer_params=settings)
    batch = mx.io.DataBatch([mx.nd.ones((4, 1, 8, 8))], [mx.nd.zeros((4,))])
    module.forward_backward(batch)
    module.update()
    optimizer, updater = module._optimizer, module._updater
    indices = {name: index for index, name in optimizer.idx2name.items()}
    # Module leaves biases and shifts out of the decay unless told otherwise; this run decays all.
    optimizer.set_wd_mult(dict.fromkeys(indices, 1.0))
    for step in STEPS:
        weights, buffers = state(step)
        arrays = {renamed(n, MODULE): mx.nd.array(a) for n, a in weights.items()}
        names = set(module._symbol.list_auxiliary_states())
        module.set_params(
            {n: a for n, a in arrays.items() if n not in names},
            {n: a for n, a in arrays.items() if n in names},
        )
        for name, array in buffers.items():
            updater.states[indices[renamed(name, MODULE)]] = slot(array, step)
        optimizer.lr = learning_rate(step - 1)
        optimizer.num_update = step
        # Twenty updates are an epoch; the last two checkpoints share one.
        prefix = str(folder / ("net" if step != 161 else "extra"))
        module.save_checkpoint(prefix, step // 20)
        with open(f"{prefix}-{step // 20:04d}.states", "wb") as file:
            file.write(updater.get_states(dump_optimizer=True))


save_gluon()
save_module()
