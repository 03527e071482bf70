"""A checkpoint of a standard architecture that speaks the benchmark's language with weights set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from braid.bench.token.language import ALPHABET, VOCABULARY, log_odds
from braid.policies.causal import CausalPolicy
from braid.policies.small import character_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAYER_SCALE = 0.01
"""What the layers add to the residual stream is scaled down by this, so that a token stays recognisable to the end."""


def make_model(options: dict[str, Any]) -> PreTrainedModel:
    """A Qwen3 model with random layers between an embedding and a head that hold the language's table.

    Token u is embedded as the unit vector u; after the last normalisation it is sqrt(hidden) long, so a head with the
    table divided by that length gives the table's log-odds as logits, up to a little noise of the layers, which
    compute as much as in any other model.

    Args:
        options: `hidden`, `layers`, `heads`, `intermediate`, `lengths` and `seed` of a token workload.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hidden = options["hidden"]
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=options["intermediate"],
        num_hidden_layers=options["layers"],
        num_attention_heads=options["heads"],
        num_key_value_heads=options["heads"],
        head_dim=hidden // options["heads"],
        tie_word_embeddings=False,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options["seed"])
        model = Qwen3ForCausalLM(config)
        model.model.embed_tokens.weight.mul_(LAYER_SCALE)
        model.model.embed_tokens.weight[:, :VOCABULARY] += torch.eye(VOCABULARY)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(LAYER_SCALE)
            layer.mlp.down_proj.weight.mul_(LAYER_SCALE)
        model.lm_head.weight[:, :VOCABULARY] = log_odds(options["lengths"]).T / hidden**0.5
    return model


def save_checkpoint(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the checkpoint that all contestants of a workload load.

    Args:
        options: as for `make_model`.
        folder: an existing directory.

    Returns:
        What is added to the options: where the checkpoint is.
    """
    path = folder / "checkpoint"
    tokenizer = character_tokenizer(ALPHABET, tags=())
    tokenizer.split_special_tokens = False  # TRL writes the end of a demonstration as text
    CausalPolicy(make_model(options), tokenizer).save(path)
    return {"checkpoint": str(path)}
