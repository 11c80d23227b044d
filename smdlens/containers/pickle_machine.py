"""State of the pickle interpreter: bytes, stack, memo, budgets, and the opcodes that move them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from smdlens.containers.inert_values import Opaque, OpaqueGlobal
from smdlens.containers.limits import Limits
from smdlens.containers.pickle_shims import SHIMS
from smdlens.containers.shim import Shim
from smdlens.errors import SnapshotUnsafeError

Persistent = Callable[[Any], Any]
_U64 = struct.Struct("<Q")


class PickleEndsError(Exception):
    """The bytes given end before the pickle does (internal: a reader may offer more)."""


class PickleStopError(Exception):
    """The pickle's own end (internal)."""


class Machine:
    """A stack machine without opcodes that make values; methods are named as in pickletools."""

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

    def unsafe(self, found: str) -> SnapshotUnsafeError:
        """The error of a budget that is used up."""
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
        """The next bytes, if there are as many."""
        start = self.pos
        end = start + nbytes
        if end > self.size:
            raise PickleEndsError
        self.pos = end
        return self.data[start:end]

    def line(self) -> bytes:
        """The bytes up to the next line feed."""
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            raise PickleEndsError
        text = self.data[self.pos : end]
        self.pos = end + 1
        return text

    def decimal(self, text: bytes) -> int:
        """An integer of bounded length; longer ones cost quadratic time."""
        if len(text) > self.limits.integer_bytes:
            raise ValueError("an integer that is too long")
        return int(text)

    def pop_mark(self) -> list[Any]:
        """The values above the last mark, and the stack below it back in place."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def find(self, module: str, name: str) -> Any:
        """The shim of a name, else a placeholder; one object per name and file."""
        key = (module, name)
        value = self.globals.get(key)
        if value is None:
            value = SHIMS.get(key) or OpaqueGlobal(module, name)
            self.globals[key] = value
        return value

    def call(self, function: Any, args: Any) -> Any:
        """Apply a shim, or make a placeholder of what the file wants called."""
        self.charge(1)
        if type(args) is not tuple:
            raise TypeError("arguments that are not a tuple")
        if type(function) is Shim:
            return function.build(self, args)
        if type(function) is OpaqueGlobal or type(function) is Opaque:
            return Opaque(function.module, function.name, args)
        raise TypeError("a call of something that is not a name")

    # -- frames, stack, memo ---------------------------------------------------------------

    def _op_proto(self) -> None:
        version = self.take(1)[0]
        if version > 5:
            raise ValueError(f"pickle protocol {version}")

    def _op_frame(self) -> None:
        (length,) = _U64.unpack(self.take(8))
        if length > self.size - self.pos:
            raise PickleEndsError

    def _op_unknown(self) -> None:
        raise ValueError(f"unknown opcode 0x{self.data[self.pos - 1]:02x}")

    def _op_stop(self) -> None:
        self.result = self.stack.pop()
        raise PickleStopError

    def _op_mark(self) -> None:
        if len(self.below) >= self.limits.pickle_depth:
            raise self.unsafe(f"more than {self.limits.pickle_depth} open marks")
        self.below.append(self.stack)
        self.stack = []

    def _op_pop_mark(self) -> None:
        self.pop_mark()

    def _op_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def _op_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _op_get(self) -> None:
        self.stack.append(self.memo[self.decimal(self.line())])

    def _op_binget(self) -> None:
        self.stack.append(self.memo[self.data[self.pos]])
        self.pos += 1

    def _op_long_binget(self) -> None:
        self.stack.append(self.memo[int.from_bytes(self.take(4), "little")])

    def _op_put(self) -> None:
        self.memo[self.decimal(self.line())] = self.stack[-1]

    def _op_binput(self) -> None:
        self.memo[self.data[self.pos]] = self.stack[-1]
        self.pos += 1

    def _op_long_binput(self) -> None:
        start = self.pos
        end = self.pos = start + 4
        if end > self.size:
            raise PickleEndsError
        self.memo[int.from_bytes(self.data[start:end], "little")] = self.stack[-1]

    def _op_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]
