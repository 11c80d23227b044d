"""What was saved: checkpoints read into an ordered series of snapshots, headers only."""

from smdlens.snapshots.series import open_series, open_snapshot

__all__ = ["open_series", "open_snapshot"]
