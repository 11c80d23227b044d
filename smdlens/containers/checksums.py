"""Are a checkpoint's bytes the ones that were written: CRC-32 of archives, SHA-256, manifests."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.zip_directory import crc_mismatches, read_zip_directory
from smdlens.errors import InputError, SnapshotCorruptError

_BLOCK = 1 << 22
_LONGEST_MANIFEST = 1 << 26
# sha256sum's lines: hash, blank, blank or star, name; a backslash in front of escaped names.
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found about one file.

    Attributes:
        label: The file as the checkpoint names it.
        sha256: Of all its bytes, in hexadecimal.
        crc: "ok", "mismatch", "not stored" (written without) or "none" (not an archive).
        mismatches: Entries of the archive whose bytes have another CRC-32.
        manifest: "ok", "mismatch", "not listed", or None without a manifest.
    """

    label: str
    sha256: str
    crc: str
    mismatches: tuple[str, ...] = ()
    manifest: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the bytes are not the ones that were written."""
        return self.crc == "mismatch" or self.manifest in ("mismatch", "not listed")


def check_files(
    files: Mapping[str, Path], manifest: Mapping[str, str] | None = None
) -> Iterator[FileCheck]:
    """Reads every byte of the files.

    Args:
        files: Label -> path.
        manifest: Real path -> SHA-256, as `read_manifest` gives it.

    Raises:
        SnapshotError: A file cannot be read, or an archive's directory is broken.
    """
    for label, path in files.items():
        with reading(path) as file:
            digest = hashlib.sha256()
            for offset in range(0, file.size, _BLOCK):
                digest.update(file.read(offset, min(_BLOCK, file.size - offset)))
            crc, mismatches = _archive(file)
        sha256 = digest.hexdigest()
        listed = None
        if manifest is not None:
            expected = manifest.get(os.path.realpath(path))
            listed = "ok" if expected == sha256 else "mismatch"
            listed = "not listed" if expected is None else listed
        yield FileCheck(label, sha256, crc, mismatches, listed)


def _archive(file: RegularFile) -> tuple[str, tuple[str, ...]]:
    if file.size < 4 or file.read(0, 4) != b"PK\3\4":
        return "none", ()
    entries = read_zip_directory(file)
    stored = {name: e for name, e in entries.items() if e.stored and e.nbytes}
    if stored and not any(entry.crc32 for entry in stored.values()):
        # torch.serialization.set_crc32_options(False)
        return "not stored", ()
    wrong = tuple(crc_mismatches(file, stored))
    return ("mismatch" if wrong else "ok"), wrong


def read_manifest(path: Path) -> dict[str, str]:
    """Real path -> SHA-256 of a manifest as `sha256sum` writes it; names are relative to it.

    Raises:
        InputError: It cannot be read, or a line is none of sha256sum's.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LONGEST_MANIFEST + 1)
        text = raw.decode("utf-8", "surrogateescape")
    except OSError as error:
        raise _bad(path, error.strerror or type(error).__name__) from error
    if len(raw) > _LONGEST_MANIFEST:
        raise _bad(path, f"more than {_LONGEST_MANIFEST} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise _bad(path, f"line {number}: {line[:80]!r}")
        name = match[3]
        if match[1]:
            name = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
        found[os.path.realpath(path.parent / name)] = match[2].lower()
    if not found:
        raise _bad(path, "an empty file")
    return found


def _bad(path: Path, found: str) -> InputError:
    return InputError(
        "the manifest cannot be used",
        subject=str(path),
        expected="lines as sha256sum writes them: 64 hexadecimal digits, two blanks, a file name",
        found=found,
        remedy="Make one with `sha256sum FILES > manifest.sha256`, beside the files.",
    )


def corrupt(check: FileCheck) -> SnapshotCorruptError:
    """The error for a file that failed."""
    if check.crc == "mismatch":
        names = ", ".join(map(repr, check.mismatches[:5]))
        message, found = "bytes differ from the CRC-32 stored with them", f"entries {names}"
    elif check.manifest == "mismatch":
        message, found = "its SHA-256 is not the one in the manifest", check.sha256
    else:
        message, found = "the manifest does not list it", check.sha256
    return SnapshotCorruptError(
        message,
        subject=check.label,
        found=found,
        remedy="Copy the checkpoint again from where it was written; do not trust this copy.",
    )
