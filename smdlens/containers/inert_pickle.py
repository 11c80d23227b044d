"""A pickle reader that runs nothing: every global becomes a placeholder.

An interpreter of pickle protocols 0 to 5 (opcode meanings from the Python standard library's
`pickletools` documentation) with an explicit table of opcodes, a bounded stack and memo, lengths
checked against the bytes that are left before anything is allocated, and no way from the file to an
import, a call or an attribute. Names it understands are listed in `pickle_shims.SHIMS`; all others
become `Opaque` placeholders.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from smdlens.containers.inert_values import (
    InlineArray,
    NumpyDtype,
    Opaque,
    OpaqueGlobal,
    PersistentId,
    PickledTensor,
)
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.containers.pickle_shims import SHIMS, Shim, array_state, checked_key
from smdlens.errors import SnapshotCorruptError, SnapshotError, SnapshotUnsafeError

Persistent = Callable[[Any], Any]
_U16, _I32, _U32, _U64 = (struct.Struct(f) for f in ("<H", "<i", "<I", "<Q"))
_BATCH = 256
_F64_BIG = struct.Struct(">d")
# What malformed input makes a handler raise; everything else is a bug of ours.
_MALFORMED = (
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    struct.error,
    RecursionError,
)


class PickleEndsError(Exception):
    """The bytes given end before the pickle does (internal: a reader may offer more)."""


class _StopError(Exception):
    pass


def load_pickle(
    data: bytes,
    *,
    subject: str,
    persistent: Persistent = PersistentId,
    limits: Limits = DEFAULT_LIMITS,
    base: int = 0,
) -> tuple[Any, int]:
    """Read one pickle from the start of `data`.

    Args:
        data: The bytes; may go on after the pickle's end.
        subject: The file, for errors.
        persistent: Turns a persistent id into a value; gets plain values and placeholders.
        limits: Bounds.
        base: Offset of `data` in the file, for errors.

    Returns:
        The value, and the number of bytes the pickle took.

    Raises:
        PickleEndsError: `data` ends too early.
        SnapshotCorruptError: Not a pickle, or one that contradicts itself.
        SnapshotUnsafeError: A bound of `limits` is exceeded.
    """
    machine = _Machine(data, subject, persistent, limits, base)
    return machine.run(), machine.pos


class _Machine:
    """The stack machine. Handlers are methods named after pickletools' opcodes."""

    def __init__(
        self, data: bytes, subject: str, persistent: Persistent, limits: Limits, base: int
    ) -> None:
        self.data = data
        self.size = len(data)
        self.pos = 0
        self.subject = subject
        self.persistent = persistent
        self.limits = limits
        self.base = base
        self.result: Any = None
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.objects_left = limits.pickle_objects
        self.globals: dict[tuple[str, str], Any] = {}

    def run(self) -> Any:
        handlers: list[Callable[[], None]] = [self.unknown] * 256
        for code, name in _OPCODES.items():
            handlers[code] = getattr(self, name)
        data, size = self.data, self.size
        longest_stack, most_opcodes = self.limits.pickle_stack, self.limits.pickle_opcodes
        start = 0
        try:
            # An opcode pushes one value at most: the stack is looked at once per batch.
            for done in range(0, most_opcodes, _BATCH):
                for _ in range(min(_BATCH, most_opcodes - done)):
                    start = self.pos
                    if start >= size:
                        raise PickleEndsError
                    self.pos = start + 1
                    handlers[data[start]]()
                if len(self.stack) > longest_stack:
                    raise self.unsafe(f"more than {longest_stack} values on the stack")
        except _StopError:
            return self.result
        except SnapshotError:
            raise
        except _MALFORMED as error:
            if self.pos >= size and isinstance(error, IndexError):
                raise PickleEndsError from error
            raise SnapshotCorruptError(
                "not a valid pickle stream",
                subject=self.subject,
                found=f"{error or type(error).__name__} at offset {self.base + start}"[:300],
                remedy="Copy the checkpoint again, or leave it out.",
            ) from error
        raise self.unsafe(f"more than {self.limits.pickle_opcodes} operations")

    # -- helpers ---------------------------------------------------------------------------

    def unsafe(self, found: str) -> SnapshotUnsafeError:
        return SnapshotUnsafeError(
            "the pickle exceeds a safety limit",
            subject=self.subject,
            found=f"{found} at offset {self.base + self.pos}",
            remedy="A checkpoint of this size is not read; do not trust this file.",
        )

    def charge(self, objects: int) -> None:
        """Pay for `objects` new objects or copied elements out of the budget."""
        self.objects_left -= objects
        if self.objects_left < 0:
            raise self.unsafe(f"more than {self.limits.pickle_objects} objects")

    def take(self, nbytes: int) -> bytes:
        start = self.pos
        end = start + nbytes
        if end > self.size:
            raise PickleEndsError
        self.pos = end
        return self.data[start:end]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            raise PickleEndsError
        text = self.data[self.pos : end]
        self.pos = end + 1
        return text

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def find(self, module: str, name: str) -> Any:
        key = (module, name)
        value = self.globals.get(key)
        if value is None:
            value = SHIMS.get(key) or OpaqueGlobal(module, name)
            self.globals[key] = value
        return value

    def call(self, function: Any, args: Any) -> Any:
        self.charge(1)
        if type(args) is not tuple:
            raise TypeError("arguments that are not a tuple")
        if type(function) is Shim:
            return function.build(self, args)
        if type(function) is OpaqueGlobal or type(function) is Opaque:
            return Opaque(function.module, function.name, args)
        raise TypeError("a call of something that is not a name")

    # -- frames, stack, memo ---------------------------------------------------------------

    def proto(self) -> None:
        version = self.take(1)[0]
        if version > 5:
            raise ValueError(f"pickle protocol {version}")

    def frame(self) -> None:
        (length,) = _U64.unpack(self.take(8))
        if length > self.size - self.pos:
            raise PickleEndsError

    def unknown(self) -> None:
        raise ValueError(f"unknown opcode 0x{self.data[self.pos - 1]:02x}")

    def stop(self) -> None:
        self.result = self.stack.pop()
        raise _StopError

    def mark(self) -> None:
        if len(self.below) >= self.limits.pickle_depth:
            raise self.unsafe(f"more than {self.limits.pickle_depth} open marks")
        self.below.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def dup(self) -> None:
        self.stack.append(self.stack[-1])

    def get(self) -> None:
        self.stack.append(self.memo[self._decimal(self.line())])

    def binget(self) -> None:
        self.stack.append(self.memo[self.data[self.pos]])
        self.pos += 1

    def long_binget(self) -> None:
        self.stack.append(self.memo[int.from_bytes(self.take(4), "little")])

    def put(self) -> None:
        self.memo[self._decimal(self.line())] = self.stack[-1]

    def binput(self) -> None:
        self.memo[self.data[self.pos]] = self.stack[-1]
        self.pos += 1

    def long_binput(self) -> None:
        start = self.pos
        end = self.pos = start + 4
        if end > self.size:
            raise PickleEndsError
        self.memo[int.from_bytes(self.data[start:end], "little")] = self.stack[-1]

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # -- numbers and strings ---------------------------------------------------------------

    def none(self) -> None:
        self.stack.append(None)

    def newtrue(self) -> None:
        self.stack.append(True)

    def newfalse(self) -> None:
        self.stack.append(False)

    def _decimal(self, text: bytes) -> int:
        if len(text) > self.limits.integer_bytes:
            raise ValueError("an integer that is too long")
        return int(text)

    def int_(self) -> None:
        text = self.line()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        else:
            self.stack.append(self._decimal(text))

    def long(self) -> None:
        self.stack.append(self._decimal(self.line().rstrip(b"L")))

    def binint(self) -> None:
        self.stack.append(_I32.unpack(self.take(4))[0])

    def binint1(self) -> None:
        self.stack.append(self.data[self.pos])
        self.pos += 1

    def binint2(self) -> None:
        self.stack.append(_U16.unpack(self.take(2))[0])

    def _long(self, nbytes: int) -> None:
        if not 0 <= nbytes <= self.limits.integer_bytes:
            raise ValueError("an integer that is too long")
        self.stack.append(int.from_bytes(self.take(nbytes), "little", signed=True))

    def long1(self) -> None:
        self._long(self.take(1)[0])

    def long4(self) -> None:
        self._long(_I32.unpack(self.take(4))[0])

    def float_(self) -> None:
        text = self.line()
        if len(text) > self.limits.integer_bytes:
            raise ValueError("a number that is too long")
        self.stack.append(float(text))

    def binfloat(self) -> None:
        self.stack.append(_F64_BIG.unpack(self.take(8))[0])

    def string(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self.stack.append(text[1:-1].decode("unicode_escape"))

    def binstring(self) -> None:
        length = _I32.unpack(self.take(4))[0]
        if length < 0:
            raise ValueError("a negative length")
        self.stack.append(_text(self.take(length)))

    def short_binstring(self) -> None:
        self.stack.append(_text(self.take(self.take(1)[0])))

    def unicode(self) -> None:
        self.stack.append(self.line().decode("raw-unicode-escape"))

    def binunicode(self) -> None:
        data, pos = self.data, self.pos
        start = pos + 4
        end = start + int.from_bytes(data[pos:start], "little")
        if end > self.size:
            raise PickleEndsError
        self.stack.append(data[start:end].decode("utf-8", "surrogatepass"))
        self.pos = end

    def short_binunicode(self) -> None:
        self.stack.append(self.take(self.take(1)[0]).decode("utf-8", "surrogatepass"))

    def binunicode8(self) -> None:
        self.stack.append(self.take(_U64.unpack(self.take(8))[0]).decode("utf-8", "surrogatepass"))

    def binbytes(self) -> None:
        self.stack.append(self.take(_U32.unpack(self.take(4))[0]))

    def short_binbytes(self) -> None:
        self.stack.append(self.take(self.take(1)[0]))

    def binbytes8(self) -> None:
        self.stack.append(self.take(_U64.unpack(self.take(8))[0]))

    def readonly_buffer(self) -> None:
        if type(self.stack[-1]) is not bytes:
            raise TypeError("a read-only buffer that is not bytes")

    # -- containers ------------------------------------------------------------------------

    def empty_tuple(self) -> None:
        self.stack.append(())

    def tuple_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append(tuple(items))

    def tuple1(self) -> None:
        self.charge(1)
        self.stack[-1] = (self.stack[-1],)

    def tuple2(self) -> None:
        self.charge(1)
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def tuple3(self) -> None:
        self.charge(1)
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def empty_list(self) -> None:
        self.charge(1)
        self.stack.append([])

    def list_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append(items)

    def append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is Opaque:
            if target.items is None:
                target.items = []
            target.items.extend(items)
        else:
            raise TypeError("elements for something that is not a list")

    def empty_dict(self) -> None:
        self.charge(1)
        self.stack.append({})

    def dict_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append({})
        self._update(items)

    def setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._update([key, value])

    def setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Opaque:
            if target.entries is None:
                target.entries = {}
            target = target.entries
        if type(target) is not dict or len(items) % 2:
            raise TypeError("entries for something that is not a dict")
        for i in range(0, len(items), 2):
            key = items[i]
            target[key if type(key) is str else checked_key(key)] = items[i + 1]

    def empty_set(self) -> None:
        self.charge(4)
        self.stack.append(set())

    def additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is set:
            target.update(map(checked_key, items))
        elif type(target) is Opaque:
            self._extend(items)
        else:
            raise TypeError("elements for something that is not a set")

    def frozenset_(self) -> None:
        items = self.pop_mark()
        self.charge(4)
        self.stack.append(frozenset(map(checked_key, items)))

    # -- names and objects -----------------------------------------------------------------

    def global_(self) -> None:
        module = self.line().decode("utf-8")
        name = self.line().decode("utf-8")
        self.stack.append(self.find(module, name))

    def stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is not text")
        self.stack.append(self.find(module, name))

    def extension1(self) -> None:
        self._extension(self.take(1)[0])

    def extension2(self) -> None:
        self._extension(_U16.unpack(self.take(2))[0])

    def extension4(self) -> None:
        self._extension(_I32.unpack(self.take(4))[0])

    def _extension(self, code: int) -> None:
        self.stack.append(OpaqueGlobal("copyreg", f"extension {code}"))

    def reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def newobj_ex(self) -> None:
        keywords = self.stack.pop()
        args = self.stack.pop()
        if type(keywords) is not dict:
            raise TypeError("keyword arguments that are not a dict")
        made = self.call(self.stack[-1], args)
        if keywords and type(made) is Opaque:
            made.state = keywords
        self.stack[-1] = made

    def inst(self) -> None:
        module = self.line().decode("utf-8")
        name = self.line().decode("utf-8")
        args = tuple(self.pop_mark())
        self.stack.append(self.call(self.find(module, name), args))

    def obj(self) -> None:
        items = self.pop_mark()
        self.stack.append(self.call(items[0], tuple(items[1:])))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        kind = type(target)
        if kind is Opaque:
            target.state = state
        elif kind is InlineArray:
            array_state(target, state)
        elif kind is NumpyDtype:
            if type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|", "="):
                target.order = ">" if state[1] == ">" else "<"
        elif kind not in (dict, list, set, PickledTensor):
            # A dict's state is state_dict()._metadata, a tensor's its Python attributes: not ours.
            raise TypeError("state for something that has none")

    def persid(self) -> None:
        self.stack.append(self.persistent(self.line().decode("utf-8")))

    def binpersid(self) -> None:
        self.charge(1)
        self.stack[-1] = self.persistent(self.stack[-1])


def _text(raw: bytes) -> str:
    """Python 2 strings: text where they are, else one character per byte."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# BYTEARRAY8 reads as bytes; NEXT_BUFFER (out-of-band data) cannot occur in a file.
_OPCODES: dict[int, str] = {
    0x80: "proto", 0x95: "frame", 0x2E: "stop", 0x28: "mark", 0x30: "pop", 0x31: "pop_mark",
    0x32: "dup", 0x67: "get", 0x68: "binget", 0x6A: "long_binget", 0x70: "put", 0x71: "binput",
    0x72: "long_binput", 0x94: "memoize", 0x4E: "none", 0x88: "newtrue", 0x89: "newfalse",
    0x49: "int_", 0x4C: "long", 0x4A: "binint", 0x4B: "binint1", 0x4D: "binint2", 0x8A: "long1",
    0x8B: "long4", 0x46: "float_", 0x47: "binfloat", 0x53: "string", 0x54: "binstring",
    0x55: "short_binstring", 0x56: "unicode", 0x58: "binunicode", 0x8C: "short_binunicode",
    0x8D: "binunicode8", 0x42: "binbytes", 0x43: "short_binbytes", 0x8E: "binbytes8",
    0x96: "binbytes8", 0x98: "readonly_buffer", 0x29: "empty_tuple", 0x74: "tuple_",
    0x85: "tuple1", 0x86: "tuple2", 0x87: "tuple3", 0x5D: "empty_list", 0x6C: "list_",
    0x61: "append", 0x65: "appends", 0x7D: "empty_dict", 0x64: "dict_", 0x73: "setitem",
    0x75: "setitems", 0x8F: "empty_set", 0x90: "additems", 0x91: "frozenset_", 0x63: "global_",
    0x93: "stack_global", 0x82: "extension1", 0x83: "extension2", 0x84: "extension4",
    0x52: "reduce", 0x81: "reduce", 0x92: "newobj_ex", 0x69: "inst", 0x6F: "obj", 0x62: "build",
    0x50: "persid", 0x51: "binpersid",
}  # fmt: skip
