"""Makes tests/golden/mxnet_graphs with the real framework: mxnet 1.9.1, numpy 1.23.5, Python 3.11.

Run once, in an environment of its own, from this folder; the symbols are kept in the repository.
Each is a network that tests/symmetry/test_symmetry_mxnet.py writes in torch as well.
"""

from pathlib import Path

import mxnet as mx
from mxnet import gluon
from mxnet.gluon import nn

HERE = Path(__file__).parent / "mxnet_graphs"
HERE.mkdir(exist_ok=True)


class Residual(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv1 = nn.Conv2D(6, 3, padding=1, use_bias=False, in_channels=3, prefix="conv1_")
            self.bn1 = nn.BatchNorm(in_channels=6, prefix="bn1_")
            self.conv2 = nn.Conv2D(6, 3, padding=1, groups=2, in_channels=6, prefix="conv2_")
            self.bn2 = nn.BatchNorm(in_channels=6, prefix="bn2_", scale=False)
            self.conv3 = nn.Conv2D(4, 1, use_bias=False, in_channels=6, prefix="conv3_")
            self.bn3 = nn.BatchNorm(in_channels=4, prefix="bn3_")
            self.fc1 = nn.Dense(12, in_units=160, use_bias=False, prefix="fc1_")
            self.bn4 = nn.BatchNorm(in_channels=12, prefix="bn4_")
            self.head = nn.Dense(5, in_units=12, prefix="head_")

    def hybrid_forward(self, F, x):
        x = F.LeakyReLU(self.bn1(self.conv1(x)), act_type="leaky", slope=0.1)
        x = F.relu(x + self.bn2(self.conv2(x)))
        x = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
        x = F.concat(F.relu(self.bn3(self.conv3(x))), x, dim=1)
        x = F.Dropout(x, p=0.1)
        x = F.relu(self.bn4(self.fc1(x))) * 0.5
        return F.log_softmax(self.head(x), axis=-1)


class Plain(gluon.HybridBlock):
    """No normalisation, a bounded activation, a sum of two branches."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.a = nn.Dense(8, in_units=7, prefix="a_")
            self.b = nn.Dense(8, in_units=7, use_bias=False, prefix="b_")
            self.c = nn.Dense(6, in_units=8, prefix="c_")
            self.norm = nn.LayerNorm(in_channels=6, prefix="norm_")
            self.d = nn.Dense(3, in_units=6, prefix="d_")

    def hybrid_forward(self, F, x):
        x = F.tanh(self.a(x)) + F.relu(self.b(x))
        return self.d(self.norm(self.c(x)))


for name, net, shape in (("residual", Residual, (2, 3, 8, 8)), ("plain", Plain, (2, 7))):
    made = net(prefix="net_")
    made.initialize()
    made.hybridize()
    made(mx.nd.random.normal(shape=shape))
    made.export(str(HERE / name))
    (HERE / f"{name}-0000.params").unlink()
