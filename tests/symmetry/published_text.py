"""Language models: decoders, encoders, sequence to sequence."""

from published import pairs, row, tokens

DECODERS = (
    "gpt_bigcode", "gpt_neox_japanese", "opt", "bloom", "mpt", "xglm", "biogpt", "openai-gpt",
    "mixtral", "qwen2", "qwen2_moe", "qwen3_moe", "gemma", "phi3", "phimoe", "olmo", "olmoe",
    "olmo3", "cohere2", "nemotron", "persimmon", "mamba", "falcon_mamba", "rwkv", "recurrent_gemma",
    "jamba",
    "glm", "glm4_moe", "granite", "granitemoe", "starcoder2", "smollm3", "helium",
    "diffllama", "arcee", "apertus", "ernie4_5", "exaone4", "hunyuan_v1_dense", "hunyuan_v1_moe",
    "seed_oss", "gpt_oss", "llama4_text", "minimax", "bitnet", "doge", "lfm2", "vaultgemma",
    "xlstm", "nanochat", "ministral", "jetmoe", "modernbert-decoder", "flex_olmo",
)  # fmt: skip
ENCODERS = (
    "deberta", "deberta-v2", "xlm", "fnet", "mpnet", "camembert",
    "xlm-roberta-xl", "roformer", "rembert", "nystromformer", "yoso", "convbert",
    "big_bird", "layoutlm", "esm", "ibert", "megatron-bert", "roberta-prelayernorm",
    "data2vec-text",
    "modernbert", "flaubert", "mra", "eurobert",
)  # fmt: skip
SEQUENCES = (
    "t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "blenderbot-small", "m2m_100",
    "marian", "plbart", "pegasus_x", "switch_transformers",
)  # fmt: skip

for kind in DECODERS:
    row(kind, "AutoModelForCausalLM", tokens)
for kind in ENCODERS:
    row(kind, "AutoModelForSequenceClassification", tokens)
for kind in SEQUENCES:
    row(kind, "AutoModel", pairs)
row("gptj", "AutoModelForCausalLM", tokens, rotary_dim=4)
row("codegen", "AutoModelForCausalLM", tokens, rotary_dim=4)
row("falcon", "AutoModelForCausalLM", tokens, head_dim=...)
row("gpt_neo", "AutoModelForCausalLM", tokens, attention_types=[[["global", "local"], 1]])
row("mamba2", "AutoModelForCausalLM", tokens, num_heads=8, head_dim=4, n_groups=2, state_size=8)
row(
    "deepseek_v3", "AutoModelForCausalLM", tokens, qk_rope_head_dim=4, qk_nope_head_dim=4,
    v_head_dim=4, q_lora_rank=8, kv_lora_rank=8, n_group=2, topk_group=1, head_dim=...,
    num_key_value_heads=4,
)  # fmt: skip
row("funnel", "AutoModelForSequenceClassification", tokens, num_hidden_layers=...,
    block_sizes=[1, 1], d_head=4)  # fmt: skip
row("xlnet", "AutoModelForSequenceClassification", tokens, max_position_embeddings=...)
row("squeezebert", "AutoModelForSequenceClassification", tokens, embedding_size=16)
row("distilbert", "AutoModelForSequenceClassification", tokens, hidden_dim=24)
row("ctrl", "AutoModelForCausalLM", tokens, dff=24)
row("canine", "AutoModelForSequenceClassification", tokens, num_hash_buckets=16,
    local_transformer_stride=4, downsampling_rate=2)  # fmt: skip
row("luke", "AutoModelForSequenceClassification", tokens, entity_vocab_size=10, entity_emb_size=8)
row("mobilebert", "AutoModelForSequenceClassification", tokens, embedding_size=8,
    intra_bottleneck_size=8, true_hidden_size=8, num_feedforward_networks=1)  # fmt: skip
row("deepseek_v2", "AutoModelForCausalLM", tokens, qk_rope_head_dim=4, qk_nope_head_dim=4,
    v_head_dim=4, q_lora_rank=8, kv_lora_rank=8, n_group=2, topk_group=1,
    num_key_value_heads=4)  # fmt: skip
row("qwen3_next", "AutoModelForCausalLM", tokens, linear_key_head_dim=4, linear_value_head_dim=4,
    linear_num_key_heads=2, linear_num_value_heads=4,
    layer_types=["linear_attention", "full_attention"])  # fmt: skip
