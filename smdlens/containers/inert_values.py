"""What an inert pickle is read into: plain values and placeholders that can do nothing.

None of these classes has behaviour a file could reach: the interpreter builds them, fills their
fields itself and never sets an attribute whose name comes from a file.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class OpaqueGlobal:
    """A name the file mentions (a class or function). It is never looked up."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class Opaque:
    """An object of a class we do not know, as the parts the file gives for it.

    Attributes:
        module: Module the file names.
        name: Class or function the file names.
        args: Arguments it would have been called with.
        state: What BUILD gave, usually the object's `__dict__`.
        items: Elements, if it is a list or set of its own kind.
        entries: Entries, if it is a dict of its own kind.
    """

    __slots__ = ("args", "entries", "items", "module", "name", "state")

    def __init__(self, module: str, name: str, args: tuple[Any, ...] = ()) -> None:
        self.module = module
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: list[Any] | None = None
        self.entries: dict[Any, Any] | None = None


class StorageKind:
    """A torch storage class: the dtype of its elements, None for untyped bytes."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str | None) -> None:
        self.dtype = dtype


class TorchDtype:
    """A torch dtype object, by name (`float32`)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Storage:
    """A torch storage the pickle refers to.

    Attributes:
        key: Its key inside the file.
        dtype: Dtype of its elements, None for untyped bytes.
        numel: Number of elements (of bytes where untyped) the pickle declares.
        path, offset, nbytes: Where its bytes lie; offset is -1 until the reader knows.
    """

    __slots__ = ("dtype", "key", "nbytes", "numel", "offset", "path")

    def __init__(self, key: str, dtype: str | None, numel: int) -> None:
        self.key = key
        self.dtype = dtype
        self.numel = numel
        self.path = ""
        self.offset = -1
        self.nbytes = 0


class PickledTensor:
    """A tensor as a view of a storage; `is_parameter` where the file says nn.Parameter."""

    __slots__ = ("dtype", "is_parameter", "offset", "shape", "storage", "strides")

    def __init__(
        self,
        storage: Storage,
        dtype: str,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.shape = shape
        self.strides = strides
        self.is_parameter = False


class InlineBytes:
    """A byte string of a pickle that stays in its file; `data` where it is short, else None.

    With `text` the file has it as UTF-8, a character for each byte, and `nbytes` are those stored.
    """

    __slots__ = ("data", "nbytes", "offset", "path", "text")

    def __init__(
        self, path: str, offset: int, nbytes: int, data: bytes | None, *, text: bool = False
    ) -> None:
        self.path = path
        self.offset = offset
        self.nbytes = nbytes
        self.data = data
        self.text = text


class NumpyDtype:
    """A numpy dtype: kind and width (`f8`), and byte order (`<`, `>` or `|`)."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code.lstrip("<>=|")
        self.order = ">" if code.startswith(">") else "<"


class InlineArray:
    """A numpy array whose bytes lie in the pickle itself (small, or left undecoded).

    Attributes:
        shape: Its shape.
        dtype: Kind and byte order of its elements.
        fortran: Whether the first index runs fastest.
        data: Its bytes; empty where `place` says where they lie in the file.
        place: Where they lie, if the pickle was read in place.
    """

    __slots__ = ("data", "dtype", "fortran", "place", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: NumpyDtype | None = None
        self.fortran = False
        self.data: bytes = b""
        self.place: InlineBytes | None = None


class PersistentId(NamedTuple):
    """A persistent id other than a storage, kept as the file gives it."""

    value: Any
