"""TensorFlow's SavedModel folders: their variables; the program in them is never run."""

from __future__ import annotations

from dataclasses import replace

from smdlens.containers.files import contained
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_file
from smdlens.snapshots.tensorflow_bundle import TensorFlowReader

_PROGRAM, _VARIABLES = "saved_model.pb", "variables"


class SavedModelReader:
    """Reader of SavedModel folders."""

    name = "tensorflow-saved-model"

    def recognises(self, candidate: Candidate) -> bool:
        """A program beside a folder of variables."""
        return candidate.is_folder and {_PROGRAM, _VARIABLES} <= candidate.names

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the index of the variables; errors as `TensorFlowReader`."""
        name = f"{_VARIABLES}/{_VARIABLES}.index"
        index = candidate_file(contained(candidate.path, name, subject=str(candidate.path)))
        reader = TensorFlowReader()
        if not reader.recognises(index):
            raise SnapshotUnsupportedError(
                "the variables of the SavedModel are no TensorFlow checkpoint",
                subject=str(index.path),
                remedy="Save it again with tf.saved_model.save, or leave it out.",
            )
        program = str(candidate.path / _PROGRAM)
        return replace(reader.read(index, limits), format=self.name, network=program)
