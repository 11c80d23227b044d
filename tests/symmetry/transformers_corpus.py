"""Small published architectures with random weights, built from configurations."""

import torch

SIZE = 64


def _image(name, config, **options):
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=5, **config)
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    size = options.get("size", SIZE)
    return model, (torch.randn(2, 3, size, size),)


def _text(model, config, **options):
    import transformers

    config = getattr(transformers, options.get("config", model))(**config)
    tokens = (torch.arange(20).reshape(2, 10) * 7) % 50
    return getattr(transformers, options["cls"])(config).eval(), (tokens,)


_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": SIZE, "patch_size": 16,
}  # fmt: skip
_DECODER = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "use_cache": False,
    "max_position_embeddings": 32,
}  # fmt: skip
_ENCODER = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip

CORPUS = {
    "resnet_basic": lambda: _image("ResNet", {**_STAGES, "layer_type": "basic"}),
    "resnet_bottleneck": lambda: _image("ResNet", {**_STAGES, "layer_type": "bottleneck"}),
    "regnet_y": lambda: _image("RegNet", {**_STAGES, "groups_width": 4, "layer_type": "y"}),
    "regnet_x": lambda: _image("RegNet", {**_STAGES, "groups_width": 4, "layer_type": "x"}),
    "mobilenet_v1": lambda: _image("MobileNetV1", {"depth_multiplier": 0.25, "image_size": SIZE}),
    "mobilenet_v2": lambda: _image(
        "MobileNetV2", {"depth_multiplier": 0.25, "image_size": SIZE, "min_depth": 4}
    ),
    "mobilevit": lambda: _image(
        "MobileViT",
        {
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [4, 4, 8, 8, 8, 8, 16],
            "image_size": SIZE,
            "num_attention_heads": 2,
        },
    ),
    "mobilevit_v2": lambda: _image(
        "MobileViTV2", {"width_multiplier": 0.25, "image_size": SIZE, "n_attn_blocks": [1, 1, 1]}
    ),
    "efficientnet": lambda: _image(
        "EfficientNet",
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "image_size": SIZE,
            "hidden_dim": 320,
        },
    ),
    "bit": lambda: _image("Bit", {**_STAGES, "num_groups": 4, "drop_path_rate": 0.0}),
    "bit_preactivation": lambda: _image(
        "Bit", {**_STAGES, "num_groups": 4, "layer_type": "preactivation"}
    ),
    "convnext": lambda: _image(
        "ConvNext", {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
    ),
    "convnext_v2": lambda: _image(
        "ConvNextV2", {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
    ),
    "vit": lambda: _image("ViT", _VIT),
    "deit": lambda: _image("DeiT", _VIT),
    "beit": lambda: _image(
        "Beit", {**_VIT, "use_relative_position_bias": True, "use_mean_pooling": True}
    ),
    "dinov2": lambda: _image("Dinov2", {**_VIT, "mlp_ratio": 2}),
    "swin": lambda: _image(
        "Swin",
        {
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "image_size": SIZE,
            "patch_size": 4,
        },
    ),
    "swin_v2": lambda: _image(
        "Swinv2",
        {
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "image_size": SIZE,
            "patch_size": 4,
        },
    ),
    "poolformer": lambda: _image(
        "PoolFormer", {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
    ),
    "pvt": lambda: _image(
        "Pvt",
        {
            "hidden_sizes": [8, 16, 16, 24],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 2],
            "image_size": SIZE,
        },
    ),
    "segformer": lambda: _image(
        "Segformer",
        {
            "hidden_sizes": [8, 16, 16, 24],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 2],
        },
    ),
    "levit": lambda: _image(
        "Levit",
        {
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [4, 4, 4],
            "image_size": SIZE,
        },
    ),
    "focalnet": lambda: _image(
        "FocalNet", {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": SIZE}
    ),
    "bert": lambda: _text("BertConfig", _ENCODER, cls="BertForSequenceClassification"),
    "roberta": lambda: _text(
        "RobertaConfig",
        {**_ENCODER, "max_position_embeddings": 40},
        cls="RobertaForSequenceClassification",
    ),
    "albert": lambda: _text(
        "AlbertConfig", {**_ENCODER, "embedding_size": 8}, cls="AlbertForSequenceClassification"
    ),
    "electra": lambda: _text(
        "ElectraConfig", {**_ENCODER, "embedding_size": 8}, cls="ElectraForSequenceClassification"
    ),
    "gpt2": lambda: _text(
        "GPT2Config",
        {
            "vocab_size": 50,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 32,
            "use_cache": False,
        },
        cls="GPT2LMHeadModel",
    ),
    "gpt_neox": lambda: _text(
        "GPTNeoXConfig",
        {k: v for k, v in _DECODER.items() if "key_value" not in k},
        cls="GPTNeoXForCausalLM",
    ),
    "llama": lambda: _text("LlamaConfig", _DECODER, cls="LlamaForCausalLM"),
    "mistral": lambda: _text("MistralConfig", _DECODER, cls="MistralForCausalLM"),
    "qwen3": lambda: _text("Qwen3Config", {**_DECODER, "head_dim": 4}, cls="Qwen3ForCausalLM"),
    "gemma2": lambda: _text("Gemma2Config", {**_DECODER, "head_dim": 4}, cls="Gemma2ForCausalLM"),
    "gemma3": lambda: _text(
        "Gemma3TextConfig", {**_DECODER, "head_dim": 4}, cls="Gemma3ForCausalLM"
    ),
    "olmo2": lambda: _text("Olmo2Config", {**_DECODER, "pad_token_id": 0}, cls="Olmo2ForCausalLM"),
    "stablelm": lambda: _text(
        "StableLmConfig",
        {**_DECODER, "qk_layernorm": True, "use_parallel_residual": False},
        cls="StableLmForCausalLM",
    ),
    "phi": lambda: _text("PhiConfig", {**_DECODER, "qk_layernorm": True}, cls="PhiForCausalLM"),
    "cohere": lambda: _text(
        "CohereConfig",
        {**_DECODER, "use_qk_norm": True, "pad_token_id": 0},
        cls="CohereForCausalLM",
    ),
    "glm4": lambda: _text(
        "Glm4Config", {**_DECODER, "head_dim": 4, "pad_token_id": 0}, cls="Glm4ForCausalLM"
    ),
}
