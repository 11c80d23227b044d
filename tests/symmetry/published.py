"""The published half of the held-out corpus: transformers' architectures at a toy size.

Every row names a model type, a class and what differs from the toy defaults. None of these types is
in `transformers_corpus.py`, which the rules were developed on.
"""

import torch

PUBLISHED = {}
TINY = {
    "vocab_size": 50, "hidden_size": 16, "d_model": 16, "n_embd": 16, "dim": 16, "embed_dim": 8,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_decoder_layers": 2, "layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 24, "d_ff": 24, "d_kv": 4,
    "d_inner": 24, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "ffn_dim": 24,
    "ffn_hidden_size": 24, "n_inner": 24, "max_position_embeddings": 64, "n_positions": 64,
    "n_ctx": 64, "max_seq_len": 64, "seq_length": 64, "image_size": 32, "patch_size": 8,
    "use_cache": False, "num_labels": 5, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8, "layerdrop": 0.0, "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0, "use_mambapy": False, "pad_token_id": 0,
}  # fmt: skip


def tokens():
    return {"input_ids": (torch.arange(22).reshape(2, 11) * 7) % 45 + 2}


def pairs():
    ids = tokens()["input_ids"]
    return {"input_ids": ids, "decoder_input_ids": ids[:, :7]}


def image():
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def tiny(kind, **changes):
    """A configuration with every size made small that it knows of."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    options = {
        name: size
        for name, size in TINY.items()
        if hasattr(usual, name) and not isinstance(getattr(usual, name), list | tuple | dict)
    } | changes
    return AutoConfig.for_model(kind, **{k: v for k, v in options.items() if v is not ...})


def row(kind, cls, inputs, name=None, **changes):
    """Enters one architecture; a size set to ... stays what the configuration makes it."""

    def build():
        import transformers

        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        config = tiny(kind, **changes)
        maker = getattr(transformers, cls)
        model = maker.from_config(config) if cls.startswith("Auto") else maker(config)
        return model.eval(), (), inputs()

    assert (name or kind) not in PUBLISHED
    PUBLISHED[name or kind] = build
