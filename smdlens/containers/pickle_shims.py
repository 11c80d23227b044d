"""The names an inert pickle may give a meaning to, each with what it builds.

Every entry is a pure function from arguments to a plain value or a placeholder. Nothing here
imports, calls or looks up anything the file names, and shims have no attribute a file can reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from smdlens.containers.inert_values import (
    InlineBytes,
    PickledTensor,
    Storage,
    StorageKind,
    TorchDtype,
)
from smdlens.containers.pickle_numpy import (
    numpy_dtype,
    numpy_frombuffer,
    numpy_reconstruct,
    numpy_scalar,
)
from smdlens.containers.shim import Budget, Builder, Shim, checked_key, integers

# -- torch -------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None) -> Any:
    if type(storage) is not Storage:
        raise TypeError("a tensor without a storage")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise ValueError("a tensor with an impossible view")
    if dtype is None:
        dtype = storage.dtype or "uint8"
    return PickledTensor(storage, dtype, offset, integers(shape), integers(strides))


def _rebuild_tensor_v2(budget: Budget, args: tuple[Any, ...]) -> Any:
    return _tensor(args[0], args[1], args[2], args[3], None)


def _rebuild_tensor_v3(budget: Budget, args: tuple[Any, ...]) -> Any:
    dtype = args[6]
    if type(dtype) is not TorchDtype:
        raise TypeError("a tensor without a dtype")
    return _tensor(args[0], args[1], args[2], args[3], dtype.name)


def _rebuild_parameter(budget: Budget, args: tuple[Any, ...]) -> Any:
    tensor = args[0]
    if type(tensor) is PickledTensor:
        tensor.is_parameter = True
    return tensor


def _first(budget: Budget, args: tuple[Any, ...]) -> Any:
    return args[0]


def _rebuild_from_type(budget: Budget, args: tuple[Any, ...]) -> Any:
    # (function, class, arguments, state): a Tensor subclass or a tensor with Python attributes.
    return budget.call(args[0], args[2])


def _size(budget: Budget, args: tuple[Any, ...]) -> Any:
    return _tuple(budget, args)


def _device(budget: Budget, args: tuple[Any, ...]) -> str:
    return ":".join(str(a)[:32] for a in args[:2] if type(a) in (str, int))


# -- Python ------------------------------------------------------------------------------------


def _elements(budget: Budget, args: tuple[Any, ...]) -> Any:
    if not args:
        return ()
    source = args[0]
    if type(source) not in (list, tuple, set, frozenset, dict):
        raise TypeError("a container built from something that is not one")
    budget.charge(len(source))
    return source


def _list(budget: Budget, args: tuple[Any, ...]) -> Any:
    return list(_elements(budget, args))


def _tuple(budget: Budget, args: tuple[Any, ...]) -> Any:
    return tuple(_elements(budget, args))


def _set(budget: Budget, args: tuple[Any, ...]) -> Any:
    return {checked_key(k) for k in _elements(budget, args)}


def _frozenset(budget: Budget, args: tuple[Any, ...]) -> Any:
    return frozenset(checked_key(k) for k in _elements(budget, args))


def _dict(budget: Budget, args: tuple[Any, ...]) -> Any:
    source = _elements(budget, args)
    if type(source) is dict:
        return dict(source)
    result: dict[Any, Any] = {}
    for pair in source:
        key, value = pair
        result[checked_key(key)] = value
    return result


def _defaultdict(budget: Budget, args: tuple[Any, ...]) -> Any:
    return _dict(budget, args[1:])


def _bytes(budget: Budget, args: tuple[Any, ...]) -> Any:
    if not args:
        return b""
    if type(args[0]) in (bytes, InlineBytes):
        return args[0]
    if type(args[0]) is str:  # bytearray(text, "latin-1"), protocols below 3
        budget.charge(1 + len(args[0]) // 64)
        return args[0].encode("latin-1")
    return bytes(_elements(budget, args))


def _encode(budget: Budget, args: tuple[Any, ...]) -> Any:
    text = args[0]
    if type(text) is InlineBytes and text.text:
        return text
    if type(text) is not str or (len(args) > 1 and args[1] not in ("latin1", "latin-1")):
        raise TypeError("an encoding that checkpoints do not use")
    budget.charge(1 + len(text) // 64)
    return text.encode("latin-1")


def _complex(budget: Budget, args: tuple[Any, ...]) -> Any:
    real, imag = args
    return complex(float(real), float(imag))


def _path(budget: Budget, args: tuple[Any, ...]) -> str:
    parts = [a for a in args if type(a) is str]
    budget.charge(1 + sum(map(len, parts)) // 64)
    return "/".join(parts).replace("//", "/")


def _reconstructor(budget: Budget, args: tuple[Any, ...]) -> Any:
    # copyreg._reconstructor(class, base, state): how protocols 0 and 1 make any object.
    return budget.call(args[0], ())


def _newobj(budget: Budget, args: tuple[Any, ...]) -> Any:
    return budget.call(args[0], args[1:])


# -- the table ---------------------------------------------------------------------------------

_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": None,
}  # fmt: skip
_TORCH_DTYPES = {
    "float64": "float64", "double": "float64", "float32": "float32", "float": "float32",
    "float16": "float16", "half": "float16", "bfloat16": "bfloat16",
    "float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2",
    "float8_e4m3fnuz": "float8_e4m3fnuz", "float8_e5m2fnuz": "float8_e5m2fnuz",
    "float8_e8m0fnu": "float8_e8m0fnu", "complex64": "complex64", "complex128": "complex128",
    "int64": "int64", "long": "int64", "int32": "int32", "int": "int32", "int16": "int16",
    "short": "int16", "int8": "int8", "uint8": "uint8", "uint16": "uint16",
    "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
_PYTHON: dict[str, Builder] = {
    "list": _list, "tuple": _tuple, "set": _set, "frozenset": _frozenset, "dict": _dict,
    "bytearray": _bytes, "bytes": _bytes, "complex": _complex,
}  # fmt: skip
_OTHERS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _list,
    "copy_reg._reconstructor": _reconstructor,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _newobj,
    "_codecs.encode": _encode,
    "numpy.dtype": numpy_dtype,
    **{
        f"numpy.{core}.multiarray.{name}": build
        for core in ("core", "_core")
        for name, build in (("scalar", numpy_scalar), ("_reconstruct", numpy_reconstruct))
    },
    **{f"numpy.{core}.numeric._frombuffer": numpy_frombuffer for core in ("core", "_core")},
    **{
        f"{module}.{name}": _path
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "Path", "PurePath", "WindowsPath")
    },
}


def _table() -> Mapping[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {}
    for name, storage in _STORAGE_DTYPES.items():
        for module in ("torch", "torch.storage", "torch.cuda"):
            table[module, name] = StorageKind(storage)
    for name, dtype in _TORCH_DTYPES.items():
        table["torch", name] = TorchDtype(dtype)
    for name, build in _PYTHON.items():
        for module in ("builtins", "__builtin__"):
            table[module, name] = Shim(f"{module}.{name}", build)
    for dotted, build in _OTHERS.items():
        module, _, name = dotted.rpartition(".")
        table[module, name] = Shim(dotted, build)
    return MappingProxyType(table)


SHIMS = _table()
