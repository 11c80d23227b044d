"""The run of reference.npz in PaddlePaddle's files: paddlepaddle 3.3.1 (needs setuptools).

`paddle`: model_N.pdparams with model_N.pdopt beside it; `paddle_one_file`: both nested in one dict;
`paddle_parts`: protocol 3 with every array above 64 bytes cut into parts, as Paddle does above a
gigabyte; `paddle_program.json`: the network's program. Run once; the result is kept in the
repository.
"""

import inspect

import paddle
from paddle import nn
from paddle.framework import io_utils
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state

NAMES = {"running_mean": "_mean", "running_var": "_variance"}


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2D(1, 6, (3, 2), padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(6)
        self.conv2 = nn.Conv2D(6, 8, (3, 2), padding=1, groups=2, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.relu(self.bn1(self.conv1(x)))
        x = nn.functional.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def with_small_parts():
    """Paddle's own function with another limit than 2^30 - 1 bytes."""
    source = inspect.getsource(UNPACK).replace("2**30 - 1", "64")
    exec(source, io_utils.__dict__)  # noqa: S102
    paddle.framework.io._unpack_saved_dict = io_utils._unpack_saved_dict


UNPACK = io_utils._unpack_saved_dict


def paddle_layout(array):
    return array.T if array.ndim == 2 else array


net = Net()
schedule = paddle.optimizer.lr.PiecewiseDecay([120], [0.0625, 0.015625])
momentum = paddle.optimizer.Momentum(
    schedule, MOMENTUM, parameters=net.parameters(), weight_decay=DECAY
)
net(paddle.randn([4, 1, 8, 8])).square().mean().backward()
momentum.step()  # makes the slots
for step in STEPS:
    weights, buffers = state(step)
    named = {}
    for name, array in weights.items():
        layer, _, leaf = name.partition(".")
        named[f"{layer}.{NAMES.get(leaf, leaf)}"] = paddle_layout(array)
    missing, unexpected = net.set_state_dict(named)
    assert not missing and not unexpected
    schedule.step(step)
    assert abs(schedule.last_lr - learning_rate(step)) < 1e-12
    slots = momentum.state_dict()
    own = {name: parameter.name for name, parameter in net.named_parameters()}
    for name, array in buffers.items():
        slots[f"{own[name]}_velocity_0"].set_value(paddle_layout(array))
    momentum.set_state_dict(slots)
    for kind in ("paddle", "paddle_one_file", "paddle_parts"):
        (HERE / kind).mkdir(exist_ok=True)
    paddle.save(net.state_dict(), str(HERE / f"paddle/model_{step}.pdparams"))
    paddle.save(momentum.state_dict(), str(HERE / f"paddle/model_{step}.pdopt"))
    both = {"model": net.state_dict(), "opt": momentum.state_dict(), "iteration": step}
    with_small_parts()
    parts = str(HERE / f"paddle_parts/model_{step}.pdparams")
    paddle.save(net.state_dict(), parts, protocol=3)
    paddle.save(both, str(HERE / f"paddle_one_file/ckpt_{step}.pdparams"))
    if step == STEPS[-1]:  # the program, without its weights
        net.eval()
        spec = paddle.static.InputSpec([None, 1, 8, 8], "float32")
        paddle.jit.save(net, str(HERE / "paddle_program"), input_spec=[spec])
        (HERE / "paddle_program.pdiparams").unlink()
