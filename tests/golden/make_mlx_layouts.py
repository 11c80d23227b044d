"""Makes tests/golden/mlx_layouts with the real framework: mlx[cpu] 0.32.4.

Run once, in an environment of its own, from this folder; the result is kept in the repository.
bfloat16 in .npz, an optimizer in a GGUF file beside the weights. What MLX holds lies beside each.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np

HERE = Path(__file__).parent / "mlx_layouts"
HERE.mkdir(exist_ok=True)
mx.random.seed(0)
brain = {"a.weight": mx.random.normal((4, 3)), "a.bias": mx.random.normal((4,))}
brain = {name: value.astype(mx.bfloat16) for name, value in brain.items()}
mx.savez(str(HERE / "brain_7.npz"), **brain)
bits = {f"weight {n}": np.array(v.view(mx.uint16)) for n, v in brain.items()}
np.savez_compressed(HERE / "brain.expected.npz", **bits)

weights = {"conv.weight": mx.random.normal((3, 2, 2, 2)), "conv.bias": mx.random.normal((3,))}
state = {f"{n}.v": mx.random.normal(v.shape) for n, v in weights.items()}
mx.save_gguf(str(HERE / "model_7.gguf"), weights)
counts = {"step": mx.array([7], mx.int32), "learning_rate": mx.array([0.25])}
mx.save_gguf(str(HERE / "optimizer_7.gguf"), {**state, **counts})
found = {f"weight {n}": np.array(v) for n, v in weights.items()}
found |= {f"momentum {n.removesuffix('.v')}": np.array(v) for n, v in state.items()}
np.savez_compressed(HERE / "model.expected.npz", **found)
