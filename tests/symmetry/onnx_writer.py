"""Writes small ONNX files by the wire format, independently of the reader under test."""

import struct

import numpy as np

_TYPES = {"float32": 1, "int64": 7}


def _varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _attribute(name, value):
    body = _field(1, name)
    if isinstance(value, list):
        return body + b"".join(_field(8, item) for item in value) + _field(20, 7)
    if isinstance(value, float):
        return body + _field(2, value) + _field(20, 1)
    if isinstance(value, str):
        return body + _field(4, value) + _field(20, 3)
    return body + _field(3, value) + _field(20, 2)


def _tensor(name, array):
    array = np.asarray(array)
    dims = b"".join(_field(1, size) for size in array.shape)
    return dims + _field(2, _TYPES[str(array.dtype)]) + _field(8, name) + _field(9, array.tobytes())


def _info(name, shape):
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    tensor = _field(1, 1) + _field(2, sizes)
    return _field(1, name) + _field(2, _field(1, tensor))


def model(nodes, weights, inputs, outputs):
    """Bytes of a ModelProto.

    Args:
        nodes: (op, inputs, outputs, attributes).
        weights: Name -> array.
        inputs: Name -> shape.
        outputs: Name -> shape.
    """
    graph = b""
    for op, sources, results, attributes in nodes:
        body = b"".join(_field(1, name) for name in sources)
        body += b"".join(_field(2, name) for name in results) + _field(4, op)
        body += b"".join(_field(5, _attribute(k, v)) for k, v in attributes.items())
        graph += _field(1, body)
    graph += _field(2, "g")
    graph += b"".join(_field(5, _tensor(name, array)) for name, array in weights.items())
    graph += b"".join(_field(11, _info(name, shape)) for name, shape in inputs.items())
    graph += b"".join(_field(12, _info(name, shape)) for name, shape in outputs.items())
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 18))
