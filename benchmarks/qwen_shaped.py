"""What the benchmarks of GPUs and of memory share: models shaped like Qwen2.5-0.5B with random weights, and rows."""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from braid.bench.machine import describe_machine
from braid.data.ragged import build_rollouts
from braid.data.records import Rollouts
from braid.methods.context import Context
from braid.methods.rlvr.grpo import GRPO
from braid.options import option
from braid.policies.causal import CausalPolicy
from braid.policies.small import PRINTABLE, character_tokenizer
from braid.tasks.text.jsonl import JsonlTask
from braid.training.learner import Learner
from braid.training.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 model with tied embeddings; by default Qwen2.5-0.5B's."""

    hidden: int = 896
    layers: int = 24
    heads: int = 14
    key_value_heads: int = 2
    intermediate: int = 4864
    vocabulary: int = 151936

    def make_model(self, weight_type: torch.dtype, device: str) -> PreTrainedModel:
        """The model, its random weights made where they stay."""
        from transformers import AutoModelForCausalLM, Qwen2Config

        config = Qwen2Config(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            tie_word_embeddings=True,
            max_position_embeddings=32768,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
        torch.manual_seed(0)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=weight_type)

    @property
    def layer_weights(self) -> int:
        """Weights of the linear layers below the output embedding."""
        head = self.hidden // self.heads
        attention = 2 * self.hidden**2 + 2 * self.hidden * head * self.key_value_heads
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def key_value_bytes(self, size: int) -> int:
        """Bytes of keys and values per position, for numbers of `size` bytes."""
        return 2 * size * self.layers * self.key_value_heads * (self.hidden // self.heads)

    def update_flops(self, prompt: int, response: int, group: int) -> float:
        """Forward and backward (twice the forward) over a prompt, once, and `group` responses.

        The output embedding counts for tokens of responses only.
        """
        positions = prompt * (prompt + 1) / 2 + group * response * (2 * prompt + response + 1) / 2
        below = 2.0 * self.layer_weights * (prompt + group * response) + 4.0 * self.layers * self.hidden * positions
        return 3 * (below + 2.0 * self.hidden * self.vocabulary * group * response)


QWEN = Shape()
SMALL = Shape(hidden=64, layers=2, heads=4, key_value_heads=2, intermediate=128, vocabulary=512)


def make_tokenizer() -> PreTrainedTokenizerBase:
    """One token per character; the model knows more tokens, which are read as nothing."""
    tokenizer = character_tokenizer(tags=())
    tokenizer.split_special_tokens = False
    return tokenizer


def make_policy(shape: Shape, weight_type: torch.dtype, device: str) -> CausalPolicy:
    """A policy as `CausalPolicy.load` makes it: with autocast on a GPU."""
    model = shape.make_model(weight_type, device)
    return CausalPolicy(model, make_tokenizer(), autocast=torch.device(device).type == "cuda")


def make_rows(count: int, characters: int) -> list[dict[str, str]]:
    """Rows with a `prompt` of random characters."""
    generator = random.Random(0)
    return [{"prompt": "".join(generator.choices(PRINTABLE[1:], k=characters))} for _ in range(count)]


def alternating_reward(completions: list[Any], **columns: Any) -> list[float]:
    """1, 0, 1, 0 …, whatever they say: rewards that differ within every group."""
    return [float(number % 2) for number in range(len(completions))]


def make_learner(
    policy: CausalPolicy, method: GRPO, settings: Settings, *, prompt_tokens: int, max_new_tokens: int
) -> Learner:
    """The product's learner on random prompts."""
    rows = make_rows(max(64, settings.prompts_per_step), prompt_tokens)
    task = JsonlTask(data=rows, validation_data=rows[:1], reward_function=alternating_reward)
    return Learner(
        policy,
        method,
        task,
        settings,
        prompts=task.examples("train"),
        demonstrations=None,
        max_new_tokens=max_new_tokens,
    )


@dataclass(frozen=True)
class GivenRollouts(GRPO):
    """GRPO on random responses of one length, so that a step is an update and hardly anything else."""

    prompt_tokens: int = option(256, "of every row", unit="tokens", low=1)
    response_tokens: int = option(512, "of every row", unit="tokens", low=1)

    def experience(self, context: Context) -> Rollouts:
        count = context.prompts_per_step * self.group_size
        vocabulary = context.policy.model.config.vocab_size
        prompts = torch.randint(vocabulary, (context.prompts_per_step, self.prompt_tokens)).tolist()
        context.examples.extend(context.prompts.take(context.prompts_per_step))
        group = torch.arange(context.prompts_per_step).repeat_interleave(self.group_size)
        likely = -float(torch.tensor(vocabulary).log())
        return build_rollouts(
            [prompt for prompt in prompts for _ in range(self.group_size)],
            torch.randint(vocabulary, (count, self.response_tokens)).tolist(),
            pad_token_id=context.policy.pad_token_id,
            log_probs=[torch.full((self.response_tokens,), likely)] * count,
            group_id=group,
            example_index=group,
        )


def write_result(path: str, content: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write a result with the machine, versions and command that it comes from."""
    device = getattr(arguments, "device", "cpu")
    machine = describe_machine(["trl", "peft"], torch.get_num_threads())
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "gpu_memory_gib": properties.total_memory / 2**30}
        machine |= {"cuda": torch.version.cuda}
    whole = {"command": sys.argv, "arguments": vars(arguments), "machine": machine, **content}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(whole, indent=2, default=asdict) + "\n", encoding="utf-8")
    print(f"written to {path}")
