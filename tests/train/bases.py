"""Tiny untrained bases of several architectures, for what must hold on each: two layers, 64 wide, 128 tokens of vocabulary."""

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig

SIZES = dict(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=256, bos_token_id=None, eos_token_id=1, pad_token_id=0)
CONFIGS = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "gpt_neox": GPTNeoXConfig(**SIZES, tie_word_embeddings=False),
    "gemma3": Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=16, sliding_window=6,
                               layer_types=["sliding_attention", "full_attention"]),
    "capped": Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=16, sliding_window=6, final_logit_softcapping=5.0,
                               layer_types=["sliding_attention", "full_attention"]),
}
"""gemma3 has a window that is shorter than the rows, capped is the same with capped logits, llama's head is its embeddings."""


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32, attn_implementation="sdpa")
    # Untrained weights are so small that what a token sees would hardly move its logits.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(8)
    return model.eval()
