"""Images, video, sound, series, and several of them at once."""

import torch
from published import image, pairs, row, tokens

CLASSES = "AutoModelForImageClassification"
SMALL = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}


def video():
    return {"pixel_values": torch.randn(2, 2, 3, 32, 32)}


def wave():
    return {"input_values": torch.randn(2, 400)}


def both():
    return {**tokens(), **image()}


for kind in ("data2vec-vision", "vit_msn", "ijepa", "dinov2_with_registers"):
    row(kind, CLASSES, image)
for kind in ("pixio", "mlcd_vision_model", "clip_vision_model", "siglip_vision_model",
             "chinese_clip_vision_model", "aimv2_vision_model", "dpt", "idefics3_vision",
             "internvl_vision", "pixtral", "sam3_vit_model", "vitdet"):  # fmt: skip
    row(kind, "AutoModel", image, **({"window_size": 2} if kind == "sam3_vit_model" else {}))
row("vit_mae", "ViTMAEModel", lambda: {**image(), "noise": torch.rand(2, 16)})
row("yolos", "AutoModel", image, image_size=[32, 32], num_detection_tokens=4)
row("cvt", CLASSES, image, embed_dim=[8, 12, 16], num_heads=[1, 2, 2], depth=[1, 2, 3],
    mlp_ratio=[2.0] * 3, drop_rate=[0.0] * 3, attention_drop_rate=[0.0] * 3,
    drop_path_rate=[0.0] * 3)  # fmt: skip
row("hgnet_v2", CLASSES, image, stem_channels=[3, 6, 8], stage_in_channels=[8, 12, 16, 20],
    stage_mid_channels=[6, 6, 8, 8], stage_out_channels=[12, 16, 20, 24],
    stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[2, 2, 2, 2],
    hidden_sizes=[12, 16, 20, 24])  # fmt: skip
row("swiftformer", CLASSES, image, embed_dims=[8, 12, 16, 16], depths=[2, 1, 1, 2], mlp_ratio=2)
row("textnet", CLASSES, image, stem_out_channels=8, hidden_sizes=[8, 8, 12, 16, 16],
    conv_layer_kernel_sizes=[[[3, 3]], [[3, 3], [1, 3]], [[3, 3], [3, 1]], [[3, 3]]],
    conv_layer_strides=[[1], [2, 1], [2, 1], [2]])  # fmt: skip
row("pvt_v2", CLASSES, image, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1],
    num_attention_heads=[1, 2, 2, 4], mlp_ratios=[2, 2, 2, 2])  # fmt: skip
row("pvt_v2", CLASSES, image, "pvt_v2_linear", hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1],
    num_attention_heads=[1, 2, 2, 4], mlp_ratios=[2, 2, 2, 2], linear_attention=True)  # fmt: skip
row("glpn", "AutoModel", image, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1],
    num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=8)  # fmt: skip
row("hiera", CLASSES, image, embed_dim=8, image_size=[32, 32], patch_size=[7, 7],
    patch_stride=[4, 4], patch_padding=[3, 3], depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4],
    masked_unit_size=[8, 8])  # fmt: skip
row("maskformer-swin", "AutoModel", image, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
    window_size=4, patch_size=4)  # fmt: skip
row("donut-swin", "AutoModel", image, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4,
    patch_size=4)  # fmt: skip
row("swin2sr", "AutoModel", image, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4,
    patch_size=1, image_size=16)  # fmt: skip
row("dinov3_vit", "DINOv3ViTModel", image)
row("dinov3_convnext", "DINOv3ConvNextModel", image, **SMALL)
row("blip_vision_model", "BlipVisionModel", image)
row("altclip_vision_model", "AltCLIPVisionModel", image)
row("metaclip_2_vision_model", "MetaClip2VisionModel", image)
row("janus_vision_model", "JanusVisionModel", image)
row("owlvit_vision_model", "OwlViTVisionModel", image)
row("rt_detr_resnet", "RTDetrResNetBackbone", image, embedding_size=8, **SMALL)
row("pp_lcnet", "PPLCNetBackbone", image, scale=0.25)
row("timesformer", "TimesformerModel", video, num_frames=2)
row("videomae", "VideoMAEForVideoClassification", video, num_frames=2)
row("vivit", "VivitModel", video, num_frames=2, tubelet_size=[1, 8, 8])
row("clip", "CLIPModel", both, text_config={"hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "eos_token_id": 2},
    vision_config={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 8}, projection_dim=8)  # fmt: skip
row("siglip", "SiglipModel", both, text_config={"hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "projection_size": 16},
    vision_config={"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 8})  # fmt: skip
row("vilt", "ViltModel", lambda: {**both(), "pixel_mask": torch.ones(2, 32, 32, dtype=torch.long)})
row("visual_bert", "VisualBertModel", tokens)
for kind in ("wav2vec2", "hubert", "wavlm", "unispeech-sat", "sew", "sew-d", "data2vec-audio",
             "wav2vec2-conformer"):  # fmt: skip
    row(kind, "AutoModel", wave, conv_dim=(8, 8, 8), conv_kernel=(5, 3, 3), conv_stride=(4, 3, 2),
        num_feat_extract_layers=3, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        **({"squeeze_factor": 2} if kind.startswith("sew") else {}))  # fmt: skip
row("wav2vec2", "AutoModel", wave, "wav2vec2_layer_norm", conv_dim=(8, 8), conv_kernel=(5, 3),
    conv_stride=(4, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
    conv_bias=True)  # fmt: skip
row("whisper", "WhisperModel",
    lambda: {"input_features": torch.randn(2, 8, 24),
             "decoder_input_ids": pairs()["decoder_input_ids"]},
    num_mel_bins=8, max_source_positions=12, max_target_positions=16)  # fmt: skip
row("audio-spectrogram-transformer", "ASTForAudioClassification",
    lambda: {"input_values": torch.randn(2, 32, 24)}, max_length=32, num_mel_bins=24,
    patch_size=8, frequency_stride=8, time_stride=8)  # fmt: skip
row("wav2vec2-bert", "Wav2Vec2BertModel", lambda: {"input_features": torch.randn(2, 12, 20)},
    feature_projection_input_dim=20)  # fmt: skip
row("speech_to_text", "Speech2TextModel",
    lambda: {"input_features": torch.randn(2, 24, 8),
             "decoder_input_ids": pairs()["decoder_input_ids"]},
    input_feat_per_channel=8, conv_channels=12, max_source_positions=32,
    max_target_positions=32)  # fmt: skip
row("parakeet_encoder", "ParakeetEncoder", lambda: {"input_features": torch.randn(2, 32, 16)},
    num_mel_bins=16, subsampling_conv_channels=8, conv_kernel_size=3,
    subsampling_factor=8)  # fmt: skip
row("speecht5_hifigan", "SpeechT5HifiGan", lambda: {"spectrogram": torch.randn(2, 10, 8)},
    model_in_dim=8, upsample_initial_channel=16, upsample_rates=[2, 2],
    upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3],
    resblock_dilation_sizes=[[1, 3]])  # fmt: skip
row("patchtst", "PatchTSTForPrediction", lambda: {"past_values": torch.randn(2, 32, 3)},
    num_input_channels=3, context_length=32, patch_length=8, patch_stride=8,
    prediction_length=4)  # fmt: skip
row("patchtsmixer", "PatchTSMixerForPrediction", lambda: {"past_values": torch.randn(2, 32, 3)},
    num_input_channels=3, context_length=32, patch_length=8, patch_stride=8,
    prediction_length=4)  # fmt: skip
row("decision_transformer", "DecisionTransformerModel", lambda: {
    "states": torch.randn(2, 4, 5), "actions": torch.randn(2, 4, 3),
    "rewards": torch.randn(2, 4, 1), "returns_to_go": torch.randn(2, 4, 1),
    "timesteps": torch.arange(8).reshape(2, 4) % 4,
    "attention_mask": torch.ones(2, 4)}, state_dim=5, act_dim=3, max_ep_len=16)  # fmt: skip
row("encodec", "EncodecModel", lambda: {"input_values": torch.randn(2, 1, 320)}, num_filters=4,
    hidden_size=8, codebook_dim=8, codebook_size=16, upsampling_ratios=[4, 2],
    target_bandwidths=[24.0])  # fmt: skip
