"""One table, ONNX operator -> operators of our table; each file enters its own."""

from smdlens.symmetry import onnx_elementwise, onnx_layers, onnx_movement
from smdlens.symmetry.onnx_translation import OPERATORS, Translation, Translator

__all__ = [
    "OPERATORS",
    "Translation",
    "Translator",
    "onnx_elementwise",
    "onnx_layers",
    "onnx_movement",
]
