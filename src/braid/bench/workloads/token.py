"""Training steps of language models: GRPO and SFT on responses of equal, ragged and very unequal lengths."""

from __future__ import annotations

from typing import Any

from braid.bench.workload import Workload

SMALL = {"hidden": 128, "layers": 4, "heads": 4, "intermediate": 512}
"""1.06 M parameters with a vocabulary of 64."""
MEDIUM = {"hidden": 256, "layers": 6, "heads": 8, "intermediate": 1024}
"""6.3 M parameters."""
CONTINUOUS = {"page_size": 32, "num_blocks": 1024, "max_batch_tokens": 512}
"""Of transformers' continuous batching, in tokens; what it chooses by itself is four times as slow on a CPU."""


def _token(name: str, title: str, *, unit: str, steps: int, options: dict[str, Any], **more: Any) -> Workload:
    contestants = {
        "braid": "braid.bench.token.braid_contestant:BraidContestant",
        "trl": "braid.bench.token.trl_contestant:TrlContestant",
        "trl-tuned": "braid.bench.token.trl_contestant:tuned",
    }
    shared = {"seed": 0, "learning_rate": 1e-6}
    setup = "braid.bench.token.checkpoint:save_checkpoint"
    return Workload(
        name, title, unit, **{"contestants": contestants, **more}, options=shared | options, steps=steps, setup=setup
    )


def _grpo(name: str, title: str, *, steps: int, options: dict[str, Any], **more: Any) -> Workload:
    options = {"method": "grpo", "prompts": 16, "group": 8, **options}
    return _token(name, title, unit="generated tokens", steps=steps, options=options, **more)


def _sft(name: str, title: str, *, steps: int, options: dict[str, Any], **more: Any) -> Workload:
    options = {"method": "sft", "prompts": 128, "group": 1, **options}
    return _token(name, title, unit="trained response tokens", steps=steps, options=options, **more)


FIXED = {**SMALL, "lengths": "fixed", "max_new_tokens": 32}
RAGGED = {**SMALL, "lengths": "ragged", "max_new_tokens": 128}
SKEWED = {**SMALL, "lengths": "skewed", "max_new_tokens": 256}
LONGER = {**MEDIUM, "lengths": "fixed", "max_new_tokens": 64}

WORKLOADS = (
    _grpo("fixed", "GRPO, 1 M parameters, 16 x 8 responses of 32 tokens", steps=6, options=FIXED, bar=1.3),
    _grpo(
        "fixed-4x",
        "the same with 64 prompts: as many tokens per second?",
        steps=2,
        options={**FIXED, "prompts": 64},
        contestants={"braid": "braid.bench.token.braid_contestant:BraidContestant"},
        bar=0.9,
        relative_to="fixed",
    ),
    _grpo("ragged", "GRPO, 1 M, responses of 1 to 128 tokens, mean 60", steps=3, options=RAGGED, bar=2.0),
    _grpo(
        "skewed",
        "GRPO, 1 M, 90 % of the responses within 24 tokens, 10 % of 256",
        steps=4,
        options={**SKEWED, "tuned": {"continuous_batching": CONTINUOUS}},
        bar=4.0,
    ),
    _grpo("medium", "GRPO, 6.3 M parameters, 16 x 8 responses of 64 tokens", steps=2, options=LONGER, bar=1.2),
    _sft("sft", "SFT, 1 M, 128 demonstrations of 32 tokens", steps=8, options=FIXED, bar=1.2),
    _sft("sft-ragged", "SFT, 1 M, 128 demonstrations of 2 to 128 tokens, mean 60", steps=4, options=RAGGED, bar=1.2),
    _sft("sft-medium", "SFT, 6.3 M, 128 demonstrations of 64 tokens", steps=2, options=LONGER, bar=1.2),
)
