"""Files of options that trainers leave beside their checkpoints: args.yaml, hparams.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smdlens.containers.files import open_regular
from smdlens.containers.flat_yaml import parse_flat_yaml
from smdlens.errors import SnapshotError
from smdlens.snapshots.records import SnapshotSeries

_NAMES = ("args.yaml", "hparams.yaml")
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """Options of one file.

    Attributes:
        label: Its name for the report.
        values: Options by name.
        ignored: Lines that are nested or tagged, so not read.
    """

    label: str
    values: Mapping[str, Any]
    ignored: int


def settings_files(series: SnapshotSeries) -> tuple[SettingsFile, ...]:
    """The files of options beside the last checkpoint, each name once, the nearest first."""
    found: dict[str, SettingsFile] = {}
    for folder in _folders(series):
        for name in _NAMES:
            if name in found:
                continue
            try:
                with open_regular(str(folder / name)) as file:
                    text = file.read(0, min(file.size, _LONGEST)).decode("utf-8", "replace")
            except SnapshotError:
                continue
            parsed = parse_flat_yaml(text)
            found[name] = SettingsFile(name, parsed.values, parsed.ignored)
    return tuple(found.values())


def _folders(series: SnapshotSeries) -> list[Path]:
    """Folder of the last checkpoint's files, the one above `checkpoints`, and the run folder."""
    folders: list[Path] = []
    for path in series.snapshots[-1].stamps:
        folder = Path(path).parent
        folders.append(folder)
        if folder.name == "checkpoints" or series.snapshots[-1].format == "hf-folder":
            folders.append(folder.parent)
    folders.append(Path(series.path))
    return list(dict.fromkeys(folders))
