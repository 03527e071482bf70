"""The sampler on architectures that people bring: absolute and rotary positions, sliding windows, scaled logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from braid.data.ragged import build_rollouts
from braid.errors import UsageError
from braid.policies.causal import CausalPolicy
from braid.policies.small import character_tokenizer
from braid.rollout.sampler import Sampling, sample

TOKENIZER = character_tokenizer()
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "qwen2": ("Qwen2Config", SIZES),
    "mistral": ("MistralConfig", {**SIZES, "sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", {**SIZES, "head_dim": 16, "sliding_window": 16}),
    "granite": ("GraniteConfig", {**SIZES, "logits_scaling": 3.0}),
}


def make_policy(name: str, **options: Any) -> CausalPolicy:
    """A policy with random weights."""
    ids = {"vocab_size": len(TOKENIZER), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    config = getattr(transformers, name)(**ids, **options)
    torch.manual_seed(0)
    return CausalPolicy(transformers.AutoModelForCausalLM.from_config(config), TOKENIZER)


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_sampled_log_probs_equal_teacher_forced_ones(kind: str) -> None:
    name, options = CONFIGURATIONS[kind]
    policy = make_policy(name, **options)
    prompts = [policy.encode_prompt(text) for text in ("Q: 12+3=?", "a prompt that is longer than the window", "a")]
    generator = torch.Generator().manual_seed(0)
    samples = sample(policy, prompts, Sampling(24), group_size=3, generator=generator)
    batch = build_rollouts(
        [prompt for prompt in prompts for _ in range(3)], samples.tokens, pad_token_id=0, log_probs=samples.log_probs
    )
    torch.testing.assert_close(policy.score(batch).log_prob, batch.behaviour_log_prob, atol=1e-4, rtol=0)


def test_a_recurrent_model_is_refused_with_a_reason() -> None:
    policy = make_policy("MambaConfig", hidden_size=64, num_hidden_layers=2, state_size=8)
    with pytest.raises(UsageError, match="mamba models carry a recurrent state"):
        sample(policy, [[5, 6]], Sampling(4), group_size=2)
