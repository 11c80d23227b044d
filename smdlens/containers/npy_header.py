"""The header of a .npy array, read as text and never evaluated.

Layout from the NumPy documentation of `numpy.lib.format` (versions 1.0 to 3.0).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from smdlens.containers.files import RegularFile
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_MOST_DIMENSIONS = 64
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?)([A-Za-z])(\d{0,4})['"]""")
_FORTRAN = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\dL, ]*)\)""")
_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "c8": "complex64", "c16": "complex128",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32",
    "u2": "uint16", "u1": "uint8", "b1": "bool", "V2": "bfloat16",  # as ml_dtypes and MLX save it
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NpyArray:
    """An array inside a file.

    Attributes:
        dtype: Our name; None where the elements are no plain numbers (text, objects, records).
        shape: Its shape.
        fortran: Whether the first index runs fastest.
        offset: Where its elements begin.
    """

    dtype: str | None
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def read_npy_header(file: RegularFile, width_of: dict[str, int]) -> NpyArray:
    """Read the header at the start of a file or of a window on one.

    Args:
        file: The array's bytes.
        width_of: Bytes per element by dtype name.

    Raises:
        SnapshotTruncatedError: The file ends inside the header.
        SnapshotCorruptError: Not such a header, or more elements than there are bytes.
        SnapshotUnsupportedError: Big-endian numbers.
    """
    start = file.read(0, 10)
    if start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise _corrupt(file, "no NumPy header of a known version")
    wide = start[6] > 1
    length = int.from_bytes(file.read(8, 4 if wide else 2), "little")
    begin = 12 if wide else 10
    if length > _LONGEST_HEADER:
        raise _corrupt(file, f"a header of {length} bytes")
    text = file.read(begin, length).decode("latin-1")
    fortran, shape = _FORTRAN.search(text), _SHAPE.search(text)
    if fortran is None or shape is None:
        raise _corrupt(file, "a header without shape or order")
    sizes = tuple(int(n.strip(" L")[:19]) for n in shape[1].split(",") if n.strip(" L"))
    if len(sizes) > _MOST_DIMENSIONS:
        raise _corrupt(file, f"{len(sizes)} dimensions")
    descr = _DESCR.search(text)
    dtype = _DTYPES.get(descr[2] + descr[3]) if descr is not None else None
    if dtype is not None and descr is not None and descr[1] == ">" and width_of[dtype] > 1:
        raise SnapshotUnsupportedError(
            "an array of big-endian numbers", subject=file.path, found=descr[0]
        )
    if dtype is not None and math.prod(sizes) * width_of[dtype] > file.size - begin - length:
        raise _corrupt(file, f"a shape {sizes} with more elements than bytes")
    return NpyArray(dtype, sizes, fortran[1] == "True", begin + length)


def _corrupt(file: RegularFile, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "not a sound NumPy array",
        subject=file.path,
        found=found,
        remedy="Copy the file again, or leave it out.",
    )
