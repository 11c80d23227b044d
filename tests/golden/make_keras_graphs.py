"""Makes tests/golden/keras_graphs: small networks as Keras describes them, and what scaling does.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0
    python make_keras_graphs.py keras
    python make_keras_graphs.py tf_keras

Truth by running: float64, epsilon 1e-30, every weight drawn at random, batch statistics in use. A
tensor is invariant where multiplying it by 0.5, 2 and 7 leaves the outputs as they are (to 1e-8 of
their size); by channel where the same holds for its first output channel alone.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np

WHICH = sys.argv[1]
if WHICH == "tf_keras":
    import tf_keras as keras
else:
    import keras
HERE = Path(__file__).parent / "keras_graphs"
HERE.mkdir(exist_ok=True)
keras.backend.set_floatx("float64")
L = keras.layers
LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight",
          "depthwise_kernel": "weight", "scale": "weight"}  # fmt: skip


def bn(**how):
    return L.BatchNormalization(epsilon=1e-30, **how)


def image(channels=3, size=8):
    return keras.Input((size, size, channels))


def vgg():
    x = i = image()
    for n in (4, 6):
        x = L.ReLU()(bn()(L.Conv2D(n, 3)(x)))
    x = L.Flatten()(L.MaxPooling2D(2)(x))
    return i, L.Dense(3)(L.Activation("relu")(bn()(L.Dense(5)(x))))


def resnet():
    i = image()
    x = L.ReLU()(bn()(L.Conv2D(4, 3, padding="same", use_bias=False)(i)))
    for stride in (1, 2):
        y = L.ReLU()(bn()(L.Conv2D(4, 3, strides=stride, padding="same", use_bias=False)(x)))
        y = bn()(L.Conv2D(4, 3, padding="same", use_bias=False)(y))
        if stride == 2:
            x = bn()(L.Conv2D(4, 1, strides=2, use_bias=False)(x))
        x = L.ReLU()(L.Add()([x, y]))
    return i, L.Dense(3)(L.GlobalAveragePooling2D()(x))


def no_norm():
    i = image()
    x = L.ReLU()(L.Conv2D(4, 3, padding="same")(i))
    x = L.AveragePooling2D(2, padding="same")(L.Conv2D(4, 3)(x))
    return i, L.Dense(3)(L.Flatten()(x))


def mobile():
    i = image()
    x = L.ReLU(6.0)(
        bn()(L.Conv2D(4, 3, strides=2, use_bias=False)(L.ZeroPadding2D(((0, 1), (0, 1)))(i)))
    )
    x = L.ReLU(6.0)(bn()(L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)))
    y = bn()(L.Conv2D(8, 1)(x))
    x = L.Add()([x, y])
    x = bn()(L.SeparableConv2D(5, 3)(x))
    return i, L.Dense(2)(L.GlobalMaxPooling2D()(x))


def squeeze():
    i = image()
    x = bn()(L.Conv2D(4, 3)(i))
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(4, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="relu")(s))
    x = bn()(L.Conv2D(5, 1)(L.Multiply()([x, s])))
    return i, L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(x))


def dense_blocks():
    i = image()
    x = L.Conv2D(4, 3, padding="same")(i)
    for _ in range(2):
        y = L.Conv2D(3, 3, padding="same")(L.ReLU()(bn()(x)))
        x = L.Concatenate()([x, y])
    x = L.ReLU()(bn()(x))
    return i, L.Dense(2)(L.GlobalAveragePooling2D()(x))


def grouped():
    i = image(4)
    x = L.Conv2D(6, 3, groups=2)(i)
    x = L.LeakyReLU()(bn()(x))
    x = L.GroupNormalization(3, epsilon=1e-30)(L.Conv2D(6, 1)(x))
    x = L.LayerNormalization(epsilon=1e-30)(L.Conv2D(5, 1, use_bias=False)(x))
    return i, L.Dense(2)(L.GlobalAveragePooling2D()(x))


def transposed():
    i = image(2, 4)
    x = L.ReLU()(bn()(L.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=False)(i)))
    x = bn()(L.Conv2D(4, 3, dilation_rate=2)(L.UpSampling2D(2)(x)))
    x = bn()(L.Conv2DTranspose(2, 2, strides=2)(L.Cropping2D(1)(x)))
    return i, L.Dense(2)(L.Flatten()(x))


def one_dimension():
    i = keras.Input((12, 3))
    x = L.ReLU()(bn()(L.Conv1D(4, 3, padding="causal")(i)))
    x = L.MaxPooling1D(2)(bn()(L.Conv1D(5, 3, padding="same")(x)))
    x = bn()(L.Dense(4)(x))
    return i, L.Dense(2)(L.Permute((2, 1))(L.Reshape((3, -1))(x)))


def transformer():
    i = keras.Input((5,), dtype="int32")
    x = L.Embedding(7, 6)(i)
    y = L.LayerNormalization(epsilon=1e-30)(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 3)(y, y)])
    y = L.LayerNormalization(epsilon=1e-30)(x)
    x = L.Add()([x, L.Dense(6)(L.Dense(8, activation="gelu")(y))])
    return i, L.Dense(7)(L.LayerNormalization(epsilon=1e-30)(x))


def post_norm():
    i = keras.Input((5, 6))
    x = L.LayerNormalization(epsilon=1e-30)(L.MultiHeadAttention(2, 4, use_bias=False)(i, i))
    x = L.LayerNormalization(epsilon=1e-30)(L.Dense(6)(x))
    return i, L.Dense(3)(x)


def recurrent():
    i = keras.Input((5, 4))
    x = bn()(L.LSTM(4, return_sequences=True)(bn()(L.Dense(4)(i))))
    return i, L.Dense(2)(bn()(L.GRU(3)(x)))


def nested():
    i = image()
    block = keras.Sequential(
        [L.Conv2D(4, 3, padding="same", use_bias=False), bn(), L.ReLU()], name="stem"
    )
    inner = keras.Input((8, 8, 4))
    tail = keras.Model(inner, bn()(L.Conv2D(4, 1)(inner)), name="tail")
    x = block(i)
    x = L.Average()([tail(x), tail(L.Dropout(0.3)(x))])
    return i, L.Dense(2)(L.GlobalAveragePooling2D()(x))


def shared():
    i = image(4)
    conv, norm = L.Conv2D(4, 3, padding="same"), bn()
    x = norm(conv(i))
    x = norm(conv(L.ReLU()(x)))
    return i, L.Dense(2)(L.Flatten()(x))


def frozen():
    i = image()
    norm = bn()
    norm.trainable = False
    x = L.ReLU()(norm(L.Conv2D(4, 3)(i)))
    return i, L.Dense(2)(L.GlobalAveragePooling2D()(bn()(L.Conv2D(4, 1)(x))))


def unknown():
    i = image()
    x = bn()(L.Conv2D(4, 3)(i))
    x = L.PReLU()(x)
    x = bn()(L.Conv2D(4, 3)(L.ELU()(x)))
    return i, L.Dense(2)(L.GlobalAveragePooling2D()(L.Maximum()([x, L.Activation("tanh")(x)])))


def two_outputs():
    i = image()
    x = L.ReLU()(bn()(L.Conv2D(4, 3)(i)))
    a = L.Dense(2)(L.GlobalAveragePooling2D()(bn()(L.Conv2D(3, 1)(x))))
    return i, [a, L.Conv2D(2, 1)(x)]


def names_of(model, path=()):
    found = {}
    for layer in model.layers:
        own = (*path, layer.name)
        if hasattr(layer, "layers"):
            found |= names_of(layer, own)
            continue
        for variable in layer.weights:
            full = variable.path if hasattr(variable, "path") else variable.name.removesuffix(":0")
            parts = full.split("/")
            inner = parts[parts.index(layer.name) + 1 :] if layer.name in parts else parts[-1:]
            leaf = LEAVES.get(inner[-1], inner[-1])
            if type(layer).__name__ == "SeparableConv2D" and "kernel" in inner[-1]:
                leaf = inner[-1]
            leaf = {"moving_mean": "running_mean", "moving_variance": "running_var"}.get(leaf, leaf)
            if inner[-1] == "kernel" and type(layer).__name__ in ("LSTM", "GRU"):
                leaf = "weight"
            found[".".join((*own, *inner[:-1], leaf))] = (variable, type(layer).__name__)
    return found


def torch_order(shape, kind, name):
    n = len(shape)
    if not name.endswith(("weight", "kernel")) or n < 2 or kind == "Embedding":
        return list(range(n))
    parent = name.split(".")[-2]
    if n == 3 and parent in ("query", "key", "value"):
        return [1, 2, 0]
    if n == 3 and parent == "attention_output":
        return [2, 0, 1]
    if "depthwise_kernel" in name or kind == "DepthwiseConv2D":
        return [n - 2, n - 1, *range(n - 2)]
    return [n - 1, n - 2, *range(n - 2)]


def outputs(model, x):
    y = model(x, training=True)
    return np.concatenate([np.asarray(v).ravel() for v in (y if isinstance(y, list) else [y])])


def truth(model, draw):
    for layer in model._flatten_layers() if hasattr(model, "_flatten_layers") else model.submodules:
        if "Dropout" in type(layer).__name__:
            layer.rate = 0.0
    names = names_of(model)
    for variable, _ in names.values():
        variable.assign(
            draw.uniform(0.3, 1.0, variable.shape) * draw.choice([-1, 1], variable.shape)
        )
    shape = (4, *model.input_shape[1:])
    x = draw.integers(0, 7, shape) if len(shape) == 2 else draw.normal(size=shape)
    statistics = {n: v.numpy().copy() for n, (v, _) in names.items() if ".running_" in n}
    for n, value in statistics.items():
        names[n][0].assign(np.abs(value))
    clean = {n: v.numpy().copy() for n, (v, _) in names.items()}

    def changed(name, value):
        for n, (v, _) in names.items():
            v.assign(clean[n])
        names[name][0].assign(value)
        return outputs(model, x)

    first = next(iter(names))
    base = changed(first, clean[first])
    result = []
    for name, (variable, kind) in names.items():
        order = torch_order(variable.shape, kind, name)
        entry = {"name": name, "shape": [int(variable.shape[a]) for a in order]}
        if ".running_" not in name:

            def same(mask, name=name):
                return all(
                    np.abs(changed(name, np.where(mask, k * clean[name], clean[name])) - base).max()
                    < 1e-8 * np.abs(base).max()
                    for k in (0.5, 2.0, 7.0)
                )

            entry["invariant"] = bool(same(np.ones(variable.shape, bool)))
            mask = np.zeros(variable.shape, bool)
            place = [slice(None)] * len(order)
            place[order[0]] = 0
            mask[tuple(place)] = True
            entry["channel"] = bool(same(mask))
        result.append(entry)
    return result


networks = (
    vgg,
    resnet,
    no_norm,
    mobile,
    squeeze,
    dense_blocks,
    grouped,
    transposed,
    one_dimension,
    transformer,
    post_norm,
    recurrent,
    nested,
    shared,
    frozen,
    unknown,
    two_outputs,
)


def main():
    found = []
    for make in networks:
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        model = keras.Model(*make(), name=make.__name__)
        tensors = truth(model, np.random.default_rng(1))
        config = json.loads(model.to_json())
        found.append({"network": make.__name__, "tensors": tensors, "config": config})
    (HERE / f"{WHICH}.json.gz").write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


if __name__ == "__main__":
    main()
