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

from smdlens.containers.inert_values import PersistentId
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.containers.pickle_machine import Persistent, PickleEndsError, PickleStopError
from smdlens.containers.pickle_structures import Structures
from smdlens.errors import SnapshotCorruptError, SnapshotError

__all__ = ["PickleEndsError", "load_pickle"]

_BATCH = 256
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
    machine = _Interpreter(data, subject, persistent, limits, base)
    return machine.run(), machine.pos


class _Interpreter(Structures):
    """Runs the opcodes of the table below, and no others."""

    def run(self) -> Any:
        handlers: list[Callable[[], None]] = [self._op_unknown] * 256
        for code, name in _OPCODES.items():
            handlers[code] = getattr(self, f"_op_{name}")
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
        except PickleStopError:
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
