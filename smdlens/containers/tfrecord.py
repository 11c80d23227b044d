"""Records of a TFRecord file, as TensorBoard's event files are made of.

Layout from TensorFlow's guide "TFRecord and tf.train.Example": length (uint64, little-endian),
masked CRC-32C of the length, data, masked CRC-32C of the data. A length is believed only if its
checksum is right and the file is that long, so a damaged one never makes anything be allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from smdlens.containers.files import RegularFile
from smdlens.errors import SnapshotCorruptError

_HEADER, _FOOTER = 12, 4
_REVERSED_CASTAGNOLI = 0x82F63B78
_MASK = 0xA282EAD8


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_REVERSED_CASTAGNOLI if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`, RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One record; its data is read and its checksum compared when asked for.

    Attributes:
        file: The file.
        offset: Where the data starts.
        nbytes: Its length.
    """

    file: RegularFile
    offset: int
    nbytes: int

    def data(self) -> bytes:
        """The bytes, unchecked: `check` says whether they are the ones that were written."""
        return self.file.read(self.offset, self.nbytes)

    def check(self, data: bytes) -> None:
        """Compare the stored checksum with that of `data`.

        Raises:
            SnapshotCorruptError: They differ.
        """
        (stored,) = struct.unpack("<I", self.file.read(self.offset + self.nbytes, _FOOTER))
        if stored != masked_crc32c(data):
            raise _corrupt(self.file, self.offset, "a record's bytes differ from their checksum")


def is_tfrecord(file: RegularFile) -> bool:
    """Whether a file starts with a record's header."""
    if file.size < _HEADER + _FOOTER:
        return False
    header = file.read(0, _HEADER)
    return struct.unpack("<I", header[8:]) == (masked_crc32c(header[:8]),)


def records(file: RegularFile) -> Iterator[Record]:
    """Every whole record in order; a last one that was cut short is left out.

    Raises:
        SnapshotCorruptError: A length that differs from its checksum.
    """
    at = 0
    while at + _HEADER <= file.size:
        header = file.read(at, _HEADER)
        (nbytes,) = struct.unpack("<Q", header[:8])
        if struct.unpack("<I", header[8:]) != (masked_crc32c(header[:8]),):
            raise _corrupt(file, at, "a record's length differs from its checksum")
        if nbytes > file.size - at - _HEADER - _FOOTER:
            return
        yield Record(file, at + _HEADER, nbytes)
        at += _HEADER + nbytes + _FOOTER


def whole_bytes(file: RegularFile) -> int:
    """Where the last whole record ends: less than the file's size where its end is missing."""
    end = 0
    for record in records(file):
        end = record.offset + record.nbytes + _FOOTER
    return end


def _corrupt(file: RegularFile, at: int, message: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        message,
        subject=file.path,
        found=f"byte {at}",
        remedy="Copy the file again from where it was written; do not trust this copy.",
    )
