"""Does this installation work: versions, devices, formats, encoding."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

from smdlens.version import __version__

_REQUIRED = ("numpy", "torch", "safetensors", "polars", "typer", "rich", "matplotlib", "jinja2")
_OLDEST_PYTHON = (3, 11)
# What `pyproject.toml` asks for.
_OLDEST = {"numpy": (1, 26), "torch": (2, 4), "polars": (1, 9), "rich": (13, 7)}


@dataclass(frozen=True, slots=True)
class Health:
    """One thing looked at.

    Attributes:
        name: What.
        text: What was found.
        broken: Whether smdlens cannot work because of it.
    """

    name: str
    text: str
    broken: bool = False


def look_around(encoding: str) -> list[Health]:
    """Everything smdlens depends on, and what the terminal can show.

    Args:
        encoding: Of the terminal.
    """
    version = platform.python_version()
    found = [
        Health("smdlens", __version__),
        Health("python", version, sys.version_info[:2] < _OLDEST_PYTHON),
        *map(_package, _REQUIRED),
    ]
    for name, look in (("device cpu", _cpu), ("device cuda", _cuda), ("device mps", _mps)):
        found.append(_guarded(name, look))
    found.append(_guarded("formats", _formats))
    found.append(_guarded("zstandard", _zstandard))
    found.append(_guarded("cache", _cache))
    return [*found, _terminal(encoding)]


def _package(name: str) -> Health:
    try:
        module = importlib.import_module(name)
        version = importlib.metadata.version(name)
    except Exception as error:  # a broken wheel raises whatever it likes
        return Health(name, f"does not import: {type(error).__name__}: {error}"[:200], broken=True)
    oldest = _OLDEST.get(name)
    if oldest is not None and _numbers(version) < oldest:
        return Health(name, f"{version}, older than {oldest[0]}.{oldest[1]}", broken=True)
    del module
    return Health(name, version)


def _zstandard() -> str:
    try:
        return importlib.metadata.version("zstandard")
    except importlib.metadata.PackageNotFoundError:
        return 'not installed; Orbax needs it: pip install "smdlens[jax]"'


def _cache() -> str:
    from smdlens.motion.cache_file import default_folder

    folder = default_folder()
    if folder is None:
        return "none: no folder for it"
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(there, os.W_OK):
        return f"none: {folder} cannot be written; --cache-dir names another"
    return f"measurements are kept in {folder}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _guarded(name: str, look: Callable[[], str]) -> Health:
    try:
        return Health(name, look())
    except Exception as error:
        needed = name in ("device cpu", "formats")
        text = f"does not work: {type(error).__name__}: {error}"[:200]
        return Health(name, text, broken=needed)


def _cpu() -> str:
    import torch

    # The sums are made in float64; a build without it could not work.
    one = torch.ones(3, dtype=torch.float64)
    if float(torch.dot(one, one)) != 3.0:
        raise ArithmeticError("1 + 1 + 1 is not 3")
    threads = torch.get_num_threads()
    return f"works, {threads} thread{'s' if threads != 1 else ''}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "works: " + ", ".join(names)


def _mps() -> str:
    import torch

    if not torch.backends.mps.is_available():
        return "none"
    return "accepted; runs on the CPU (no float64 there)"


def _formats() -> str:
    from smdlens.snapshots.readers import READERS

    return ", ".join(reader.name for reader in READERS)


def _terminal(encoding: str) -> Health:
    plain = not encoding.lower().startswith("utf")
    return Health("terminal", f"{encoding}{', symbols are shown in ASCII' if plain else ''}")
