"""Opcodes that push numbers, strings and bytes."""

from __future__ import annotations

import struct

from smdlens.containers.inert_values import InlineBytes
from smdlens.containers.pickle_machine import Machine, PickleEndsError

_U16, _I32, _U32, _U64 = (struct.Struct(f) for f in ("<H", "<i", "<I", "<Q"))
_F64_BIG = struct.Struct(">d")


class Literals(Machine):
    """Lengths are checked against the bytes that are left before anything is allocated."""

    def _op_none(self) -> None:
        self.stack.append(None)

    def _op_newtrue(self) -> None:
        self.stack.append(True)

    def _op_newfalse(self) -> None:
        self.stack.append(False)

    def _op_int_(self) -> None:
        text = self.line()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        else:
            self.stack.append(self.decimal(text))

    def _op_long(self) -> None:
        self.stack.append(self.decimal(self.line().rstrip(b"L")))

    def _op_binint(self) -> None:
        self.stack.append(_I32.unpack(self.take(4))[0])

    def _op_binint1(self) -> None:
        self.stack.append(self.data[self.pos])
        self.pos += 1

    def _op_binint2(self) -> None:
        self.stack.append(_U16.unpack(self.take(2))[0])

    def _long(self, nbytes: int) -> None:
        if not 0 <= nbytes <= self.limits.integer_bytes:
            raise ValueError("an integer that is too long")
        self.stack.append(int.from_bytes(self.take(nbytes), "little", signed=True))

    def _op_long1(self) -> None:
        self._long(self.take(1)[0])

    def _op_long4(self) -> None:
        self._long(_I32.unpack(self.take(4))[0])

    def _op_float_(self) -> None:
        text = self.line()
        if len(text) > self.limits.integer_bytes:
            raise ValueError("a number that is too long")
        self.stack.append(float(text))

    def _op_binfloat(self) -> None:
        self.stack.append(_F64_BIG.unpack(self.take(8))[0])

    def _op_string(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self.stack.append(text[1:-1].decode("unicode_escape"))

    def _op_binstring(self) -> None:
        length = _I32.unpack(self.take(4))[0]
        if length < 0:
            raise ValueError("a negative length")
        self.stack.append(_text(self.take(length)))

    def _op_short_binstring(self) -> None:
        self.stack.append(_text(self.take(self.take(1)[0])))

    def _op_unicode(self) -> None:
        self.stack.append(self.line().decode("raw-unicode-escape"))

    def _op_binunicode(self) -> None:
        data, pos = self.data, self.pos
        start = pos + 4
        end = start + int.from_bytes(data[pos:start], "little")
        if end > self.size:
            raise PickleEndsError
        self.stack.append(data[start:end].decode("utf-8", "surrogatepass"))
        self.pos = end

    def _op_short_binunicode(self) -> None:
        self.stack.append(self.take(self.take(1)[0]).decode("utf-8", "surrogatepass"))

    def _op_binunicode8(self) -> None:
        self.stack.append(self.take(_U64.unpack(self.take(8))[0]).decode("utf-8", "surrogatepass"))

    def _op_binbytes(self) -> None:
        self.stack.append(self.take(_U32.unpack(self.take(4))[0]))

    def _op_short_binbytes(self) -> None:
        self.stack.append(self.take(self.take(1)[0]))

    def _op_binbytes8(self) -> None:
        self.stack.append(self.take(_U64.unpack(self.take(8))[0]))

    def _op_readonly_buffer(self) -> None:
        if type(self.stack[-1]) not in (bytes, InlineBytes):
            raise TypeError("a read-only buffer that is not bytes")


def _text(raw: bytes) -> str:
    """Python 2 strings: text where they are, else one character per byte."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
