"""Makes tests/golden/gguf with the real writer: gguf 0.19.0 (llama.cpp's own package).

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install gguf==0.19.0
    python make_gguf.py

Beside the file lies what it holds as plain arrays (expected.npz).
"""

from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent / "gguf"
HERE.mkdir(exist_ok=True)
draw = np.random.default_rng(0)
arrays = {
    "blk.0.attn_q.weight": draw.normal(size=(6, 4)).astype(np.float32),
    "blk.0.attn_norm.weight": draw.normal(size=6).astype(np.float64),
    "blk.0.ffn_up.weight": draw.normal(size=(5, 4)).astype(np.float16),
    "conv.weight": draw.normal(size=(3, 2, 3, 2)).astype(np.float32),
    "positions": np.arange(7, dtype=np.int32),
}
for name in ("mixed", "quantised"):
    writer = gguf.GGUFWriter(HERE / f"{name}_30.gguf", "llama")
    writer.add_uint32("training.iteration_count", 30)
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(100)])
    writer.add_array("a.numbers", [1.5, 2.5])
    writer.add_float64("a.double", 0.25)
    writer.add_bool("a.flag", True)
    if name == "mixed":
        for key, array in arrays.items():
            writer.add_tensor(key, array)
        half = draw.normal(size=(2, 4)).astype(np.float32)
        raw = gguf.quants.quantize(half, gguf.GGMLQuantizationType.BF16)
        writer.add_tensor("half", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
        arrays["half"] = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.BF16)
    wide = draw.normal(size=(2, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0 if name == "mixed" else gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("blk.0.wide.weight", gguf.quants.quantize(wide, kind), raw_dtype=kind)
    if name == "quantised":
        writer.add_tensor("blk.0.attn_norm.weight", arrays["blk.0.attn_norm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
np.savez(HERE / "mixed_30.expected.npz", **arrays)
