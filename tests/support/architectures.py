"""Tiny models of many architectures, made on the spot: the smallest configuration of each."""

from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny import VOCAB  # noqa: E402

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEQ2SEQ = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "scale_embedding": False,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
PROPHET = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "decoder_ffn_dim": 24,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "is_decoder": True,
}
LATENT = {
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
EXPERTS = {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
MAMBA = {
    "mamba_n_heads": 2,
    "mamba_d_head": 16,
    "mamba_d_ssm": 32,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 4,
}


@dataclass(frozen=True)
class Architecture:
    """A configuration and a model of `transformers`, and which route its scores are to come by."""

    config: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=lambda: SMALL)
    route: str = "head"  # or "cap", or "all": real logits of all positions, with a warning

    @property
    def known(self) -> bool:
        """Whether the `transformers` that is installed has it."""
        return hasattr(transformers, self.config)

    def build(self, **options: Any) -> Any:
        """The model, biases, norms and buffers off their symmetric start so that nothing cancels; in training mode."""
        if not self.known:
            pytest.skip(f"this transformers has no {self.config}")
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**{**self.small, **self.options, **options})
        model = getattr(transformers, self.model)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            if hasattr(model, "final_logits_bias"):
                model.final_logits_bias += torch.randn_like(model.final_logits_bias)
        return model.train()


def causal(family: str, model: str | None = None, /, small: Any = SMALL, route: Any = "head", **options: Any) -> Any:
    return Architecture(f"{family}Config", model or f"{family}ForCausalLM", options, small, route)


def seq2seq(family: str, model: str | None = None, /, small: Any = SEQ2SEQ, **options: Any) -> Architecture:
    return Architecture(f"{family}Config", model or f"{family}ForConditionalGeneration", options, small)


TABLE = {
    "Llama": causal("Llama"),
    "Llama tied": causal("Llama", tie_word_embeddings=True),
    "Mistral": causal("Mistral"),
    "Mixtral": causal("Mixtral", **EXPERTS),
    "Qwen2": causal("Qwen2"),
    "Qwen2 tied": causal("Qwen2", tie_word_embeddings=True),
    "Qwen2Moe": causal("Qwen2Moe", **EXPERTS, shared_expert_intermediate_size=24),
    "Qwen3": causal("Qwen3", head_dim=8),
    "Qwen3Moe": causal("Qwen3Moe", **EXPERTS, head_dim=8),
    "GPT2": causal("GPT2", "GPT2LMHeadModel"),
    "GPTNeo": causal("GPTNeo", num_layers=1, attention_types=[[["global"], 1]]),
    "GPTNeoX": causal("GPTNeoX"),
    "GPTJ": causal("GPTJ", rotary_dim=8),  # bias on its head
    "GPTBigCode": causal("GPTBigCode"),
    "Gemma": causal("Gemma", head_dim=8),
    "Gemma2": causal("Gemma2", head_dim=8, final_logit_softcapping=30.0, route="cap"),
    "Gemma2 hard cap": causal("Gemma2", head_dim=8, final_logit_softcapping=0.5, route="cap"),
    "Gemma2 no cap": causal("Gemma2", head_dim=8, final_logit_softcapping=None),
    "Gemma3": Architecture("Gemma3TextConfig", "Gemma3ForCausalLM", {"head_dim": 8}),
    "VaultGemma": causal("VaultGemma", head_dim=8, final_logit_softcapping=2.0, route="cap"),
    "RecurrentGemma": causal("RecurrentGemma", lru_width=16, num_hidden_layers=3, logits_soft_cap=2.0, route="cap"),
    "NanoChat": causal("NanoChat", route="cap"),
    "Cohere": causal("Cohere", logit_scale=0.0625),
    "Cohere2": causal("Cohere2", logit_scale=0.0625),
    "Granite": causal("Granite", logits_scaling=8.0),
    "GraniteMoe": causal("GraniteMoe", **EXPERTS, logits_scaling=8.0),
    "HyperCLOVAX": causal("HyperCLOVAX", logits_scaling=0.25),  # the name of Granite's divisor, but a factor
    "FalconH1": causal("FalconH1", **MAMBA, lm_head_multiplier=0.3),
    "Phi": causal("Phi"),  # bias on its head
    "Phi3": causal("Phi3"),
    "OPT": causal("OPT", ffn_dim=24, word_embed_proj_dim=16),
    "OPT project_out": causal("OPT", ffn_dim=24, word_embed_proj_dim=8),
    "MPT": causal("Mpt", d_model=16, n_heads=2, n_layers=1),
    "MPT logit_scale": causal("Mpt", d_model=16, n_heads=2, n_layers=1, logit_scale=0.25),  # which the model ignores
    "Bloom": causal("Bloom", n_head=2, n_layer=1),
    "Falcon": causal("Falcon"),
    "StableLM": causal("StableLm"),
    "OLMo2": causal("Olmo2"),
    "Starcoder2": causal("Starcoder2"),
    "CodeGen": causal("CodeGen", num_attention_heads=4, rotary_dim=4),  # bias on its head
    "Mamba": causal("Mamba", state_size=4),
    "GptOss": causal("GptOss", **EXPERTS, head_dim=8),
    "MiniCPM3": causal("MiniCPM3", **LATENT, dim_model_base=8),  # scaled before the head
    "DeepseekV3": causal(
        "DeepseekV3",
        **LATENT,
        n_routed_experts=2,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=1,
        moe_intermediate_size=24,
        first_k_dense_replace=0,
    ),
    "GLM": causal("Glm", head_dim=8),
    "Exaone4": causal("Exaone4"),
    "SmolLM3": causal("SmolLM3"),
    "Nemotron": causal("Nemotron"),
    "OLMoE": causal("Olmoe", **EXPERTS),
    "Apertus": causal("Apertus"),
    "Helium": causal("Helium", head_dim=8),
    "Jamba": causal(
        "Jamba",
        **EXPERTS,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        num_hidden_layers=2,
        attn_layer_period=2,
        attn_layer_offset=1,
    ),
    "Ernie4.5": causal("Ernie4_5"),
    "Persimmon": causal("Persimmon"),
    "BioGpt": causal("BioGpt"),
    "XGLM": causal("XGLM", d_model=16, ffn_dim=24, num_layers=1, attention_heads=2),
    "Electra": causal("Electra", embedding_size=16, is_decoder=True),
    "Bamba": causal("Bamba", **MAMBA, num_hidden_layers=2, attn_layer_indices=[1]),
    "LFM2": causal("Lfm2"),
    "Bert": causal("Bert", "BertLMHeadModel", is_decoder=True),  # a transform before its head, which has a bias
    "XLNet": causal(
        "XLNet", "XLNetLMHeadModel", small={"vocab_size": VOCAB}, d_model=16, n_layer=1, n_head=2, d_inner=24
    ),
    "CTRL": causal("CTRL", "CTRLLMHeadModel", n_embd=16, dff=24, n_layer=1, n_head=2),
    "RWKV": causal("Rwkv", attention_hidden_size=16, num_hidden_layers=2),
    "xLSTM": causal(
        "xLSTM",
        num_heads=2,
        num_blocks=1,
        qk_dim_factor=1.0,
        v_dim_factor=1.0,
        mlstm_round_up_to_multiple_of=1,
        ffn_round_up_to_multiple_of=1,
        output_logit_soft_cap=2.0,
        use_cache=False,
        route="cap",
    ),
    "ProphetNet": causal("ProphetNet", small=PROPHET, route="all"),  # its head is given several predictions at once
    "BART": seq2seq("Bart"),
    "BART causal": Architecture("BartConfig", "BartForCausalLM", {"is_encoder_decoder": False}, SEQ2SEQ),
    "mBART": seq2seq("MBart"),
    "Marian": seq2seq("Marian", "MarianMTModel"),
    "Pegasus": seq2seq("Pegasus"),
    "M2M100": seq2seq("M2M100"),  # has no way of its own to decoder inputs
    "Blenderbot": seq2seq("Blenderbot"),
    "BlenderbotSmall": seq2seq("BlenderbotSmall"),
    "PLBart": seq2seq("PLBart"),
    "T5": seq2seq("T5", small=T5, tie_word_embeddings=True),  # scaled before the head
    "T5 untied": seq2seq("T5", small=T5, tie_word_embeddings=False),
    "UMT5": seq2seq("UMT5", small=T5),
    "LongT5": seq2seq("LongT5", small=T5, local_radius=4),
    "Switch": seq2seq(
        "SwitchTransformers", small=T5, num_experts=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1
    ),
}
