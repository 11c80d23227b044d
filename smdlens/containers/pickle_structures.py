"""Opcodes that build tuples, lists, dicts and sets, and those that name, call and fill objects."""

from __future__ import annotations

import struct
from typing import Any

from smdlens.containers.inert_values import (
    InlineArray,
    NumpyDtype,
    Opaque,
    OpaqueGlobal,
    PickledTensor,
)
from smdlens.containers.pickle_literals import Literals
from smdlens.containers.pickle_numpy import array_state
from smdlens.containers.shim import checked_key

_U16, _I32 = struct.Struct("<H"), struct.Struct("<i")


class Structures(Literals):
    """A name becomes a placeholder or a shim; a call makes a placeholder or applies the shim."""

    # -- containers ------------------------------------------------------------------------

    def _op_empty_tuple(self) -> None:
        self.stack.append(())

    def _op_tuple_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append(tuple(items))

    def _op_tuple1(self) -> None:
        self.charge(1)
        self.stack[-1] = (self.stack[-1],)

    def _op_tuple2(self) -> None:
        self.charge(1)
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _op_tuple3(self) -> None:
        self.charge(1)
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _op_empty_list(self) -> None:
        self.charge(1)
        self.stack.append([])

    def _op_list_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append(items)

    def _op_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _op_appends(self) -> None:
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

    def _op_empty_dict(self) -> None:
        self.charge(1)
        self.stack.append({})

    def _op_dict_(self) -> None:
        items = self.pop_mark()
        self.charge(1)
        self.stack.append({})
        self._update(items)

    def _op_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._update([key, value])

    def _op_setitems(self) -> None:
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

    def _op_empty_set(self) -> None:
        self.charge(4)
        self.stack.append(set())

    def _op_additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is set:
            target.update(map(checked_key, items))
        elif type(target) is Opaque:
            self._extend(items)
        else:
            raise TypeError("elements for something that is not a set")

    def _op_frozenset_(self) -> None:
        items = self.pop_mark()
        self.charge(4)
        self.stack.append(frozenset(map(checked_key, items)))

    # -- names and objects -----------------------------------------------------------------

    def _op_global_(self) -> None:
        module = self.line().decode("utf-8")
        name = self.line().decode("utf-8")
        self.stack.append(self.find(module, name))

    def _op_stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is not text")
        self.stack.append(self.find(module, name))

    def _op_extension1(self) -> None:
        self._extension(self.take(1)[0])

    def _op_extension2(self) -> None:
        self._extension(_U16.unpack(self.take(2))[0])

    def _op_extension4(self) -> None:
        self._extension(_I32.unpack(self.take(4))[0])

    def _extension(self, code: int) -> None:
        self.stack.append(OpaqueGlobal("copyreg", f"extension {code}"))

    def _op_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _op_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        args = self.stack.pop()
        if type(keywords) is not dict:
            raise TypeError("keyword arguments that are not a dict")
        made = self.call(self.stack[-1], args)
        if keywords and type(made) is Opaque:
            made.state = keywords
        self.stack[-1] = made

    def _op_inst(self) -> None:
        module = self.line().decode("utf-8")
        name = self.line().decode("utf-8")
        args = tuple(self.pop_mark())
        self.stack.append(self.call(self.find(module, name), args))

    def _op_obj(self) -> None:
        items = self.pop_mark()
        self.stack.append(self.call(items[0], tuple(items[1:])))

    def _op_build(self) -> None:
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

    def _op_persid(self) -> None:
        self.stack.append(self.persistent(self.line().decode("utf-8")))

    def _op_binpersid(self) -> None:
        self.charge(1)
        self.stack[-1] = self.persistent(self.stack[-1])
