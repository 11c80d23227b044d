"""Makes tests/golden/paddle_layouts with the real framework: paddlepaddle 3.3.1 (needs setuptools).

Run twice, in an environment of its own, from this folder; the result is kept in the repository:

    python make_paddle_layouts.py
    FLAGS_enable_pir_api=0 python make_paddle_layouts.py

Pickles of protocol 2, the state of an optimizer that is not read, exported models under both kinds
of programs. Beside each lies what Paddle holds (`NAME.expected.npz`: "weight NAME", "momentum NAME"
and so on).
"""

import os
import re
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

HERE = Path(__file__).parent / "paddle_layouts"
HERE.mkdir(exist_ok=True)
OLD = os.environ.get("FLAGS_enable_pir_api") == "0"  # noqa: SIM112 (Paddle's own name)
DRAW = np.random.default_rng(0)


def network():
    net = nn.Sequential(nn.Conv2D(2, 3, 2), nn.BatchNorm2D(3), nn.Flatten(), nn.Linear(12, 12))
    for value in net.state_dict().values():
        value.set_value(paddle.to_tensor(DRAW.standard_normal(value.shape).astype("float32")))
    return net


def trained(make):
    net = network()
    optimizer = make(net.parameters())
    (net(paddle.randn([2, 2, 3, 3])) ** 2).mean().backward()
    optimizer.step()
    return net, optimizer.state_dict()


def keep(name, net, state):
    found = {f"weight {n}": p.numpy() for n, p in net.state_dict().items()}
    own = {p.name: n for n, p in net.state_dict().items()}
    for key, value in state.items():
        base, _, slot = key.removesuffix("_0").rpartition("_")
        if slot == "velocity":
            found[f"momentum {own[base]}"] = value.numpy()
    np.savez_compressed(HERE / f"{name}.expected.npz", **found)


if not OLD:
    net, state = trained(lambda p: paddle.optimizer.Momentum(0.1, 0.5, parameters=p))
    paddle.save(net.state_dict(), str(HERE / "protocol_2.pdparams"), protocol=2)
    paddle.save(state, str(HERE / "protocol_2.pdopt"), protocol=2)
    keep("protocol_2", net, state)

    net, state = trained(lambda p: paddle.optimizer.RMSProp(0.1, parameters=p))
    held = {"model": net.state_dict(), "opt": state, "step": 7}
    paddle.save(held, str(HERE / "rmsprop_one_file.pdparams"))
    keep("rmsprop_one_file", net, {})

name = "program" if OLD else "pir"
net = network()
net.eval()
spec = [paddle.static.InputSpec([None, 2, 3, 3], "float32", "x")]
paddle.jit.save(net, str(HERE / name), input_spec=spec)
keep(name, net, {})
if OLD:  # operators remember the lines that made them: nothing of the maker's machine is kept
    program = HERE / "program.pdmodel"
    blank = re.compile(rb'File "[^"]*"')
    program.write_bytes(
        blank.sub(lambda m: b'File "' + b"_" * (len(m[0]) - 7) + b'"', program.read_bytes())
    )
