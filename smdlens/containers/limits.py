"""How much of a file's own claims is believed before reading stops."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on what one checkpoint may make the reader do.

    The defaults let a checkpoint of several hundred thousand tensors and its optimizer state
    through (about 90 pickle bytes and 50 opcodes per tensor) and stop a hostile file within
    seconds and about a gigabyte.

    Attributes:
        pickle_bytes: Longest pickle stream.
        pickle_opcodes: Most opcodes in one stream.
        pickle_objects: Most containers and placeholders built from one stream, copies of
            elements included.
        pickle_depth: Most marks open at once.
        pickle_stack: Most values on the stack at once.
        integer_bytes: Longest integer; conversion of longer ones is quadratic.
        json_bytes: Longest JSON text.
        json_depth: Deepest nesting of a JSON text.
        zip_entries: Most entries of a zip archive.
        inline_bytes: Longest byte string decoded to numbers (small arrays kept in a pickle).
        plain_values: Most values kept from one checkpoint besides tensors.
        plain_depth: Deepest nesting kept of them.
        index_files: Most files one index may name.
        tensor_pieces: Most byte ranges the tensors of one sharded checkpoint may be joined from.
    """

    pickle_bytes: int = 256 * MIB
    pickle_opcodes: int = 40_000_000
    pickle_objects: int = 8_000_000
    pickle_depth: int = 1_000
    pickle_stack: int = 2_000_000
    integer_bytes: int = 256
    json_bytes: int = 100_000_000
    json_depth: int = 100
    zip_entries: int = 1_000_000
    inline_bytes: int = 64 * 1024
    plain_values: int = 500_000
    plain_depth: int = 32
    index_files: int = 10_000
    tensor_pieces: int = 1_000_000


DEFAULT_LIMITS = Limits()
