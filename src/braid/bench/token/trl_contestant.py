"""TRL on the token workloads: as its examples set it up, and tuned to the CPU, both computing what Braid computes.

What is set away from TRL's defaults, for both trainers: `bf16=False` and `use_cpu=True` (float32, as Braid),
`gradient_checkpointing=False` (TRL's default computes every layer twice), `optim="adamw_torch_fused"`, all rows of a
step in one pass, a constant learning rate, and nothing is logged, saved, evaluated or reported. GRPO: 8 generations of
each prompt, one generation batch per optimiser step, temperature 1 without top-p, top-k and min-p, no reference model.
TRL's other defaults suit: with aligned steps it does not score the samples a second time, it casts nothing, it masks no
truncated completion and prints none. SFT: the loss is on the completion only, nothing is packed or cut.

`tuned` adds what was found to be faster for it: 32 rows at a time with the gradients accumulated to one optimiser step
of all rows (the same gradient), `torch_compile=True` where there is a C++ compiler, and continuous batching where
responses differ most in length. `benchmarks/README.md` tells what else was tried.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.utils import logging

from braid.bench.contestant import StepTiming
from braid.bench.token.data import letters, make_rows
from braid.bench.token.flops import Row, TokenFlops
from braid.bench.token.language import PROMPT_LENGTH, VOCABULARY

ENDLESS = 10**9
"""Steps; training ends when no order comes."""


class TrlContestant:
    """A TRL trainer on a token workload.

    Args:
        options: of the workload, with the checkpoint's place.
        rows_at_a_time: of a forward and backward pass; 0 is all.
        torch_compile: compile the model, if there is a compiler.
        continuous_batching: its configuration; None leaves it off.
    """

    library = "trl"
    version = trl.__version__

    def __init__(
        self,
        options: dict[str, Any],
        *,
        rows_at_a_time: int = 0,
        torch_compile: bool = False,
        continuous_batching: dict[str, int] | None = None,
    ) -> None:
        self.options = options
        self.flops = TokenFlops.of(options, VOCABULARY)
        self.imitates = options["method"] == "sft"
        self.continuous = continuous_batching
        common = common_arguments(options, rows_at_a_time, torch_compile)
        self.configuration = common | ({} if self.imitates else self._grpo_arguments())

    def prepare(self) -> None:
        """Load the checkpoint and make the trainer."""
        logging.disable_progress_bar()
        checkpoint = self.options["checkpoint"]
        given: dict[str, Any] = {
            "model": AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32"),
            "train_dataset": Dataset.from_list(make_rows(self.options)),
            "processing_class": AutoTokenizer.from_pretrained(checkpoint),
        }
        arguments = {"output_dir": str(Path(checkpoint).parent / "trl"), **self.configuration}
        if self.imitates:
            self.trainer: Any = trl.SFTTrainer(args=trl.SFTConfig(**arguments, max_length=None), **given)
        else:
            given["reward_funcs"] = letters
            self.trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**arguments), **given)
        self.clock = PhaseClock(self.trainer)

    def run(self, orders: Iterator[int], report: Callable[[list[StepTiming]], None]) -> None:
        self.trainer.add_callback(Pace(self, orders, report))
        self.trainer.train()

    def timing(self, seconds: float) -> StepTiming:
        """What the clock and the trainer know of the step that just ended."""
        spent, rows = self.clock.take(), self.clock.take_rows()
        if self.imitates:
            phases, flops = {"update": spent["step"]}, {"update": self.flops.update(rows)}
        else:
            phases = {"reward": spent["reward"], "update": spent["step"] - spent["collect"]}
            flops = self.flops.of_step(rows, self.options["group"])
            if self.continuous:  # prompts and responses are read in the same passes
                phases["decode"] = spent["generate"]
                flops["decode"] += flops.pop("prefill")
            else:
                phases |= {"prefill": spent["prefill"], "decode": spent["generate"] - spent["prefill"]}
        lengths = [length for _, length in rows]
        facts = {"mean length": sum(lengths) / len(lengths), "longest": float(max(lengths))}
        return StepTiming(seconds, float(sum(lengths)), phases, flops, facts)

    def close(self) -> None:
        pass

    def _grpo_arguments(self) -> dict[str, Any]:
        return {
            "num_generations": self.options["group"],
            "max_completion_length": self.options["max_new_tokens"],
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": None,
            "beta": 0.0,
            "num_iterations": 1,
            "use_vllm": False,
            "log_completions": False,
            "use_transformers_continuous_batching": self.continuous is not None,
            "transformers_continuous_batching_config": self.continuous,
        }


def tuned(options: dict[str, Any]) -> TrlContestant:
    """TRL with the settings that were fastest on a CPU; `tuned` of the options adds the workload's own."""
    return TrlContestant(options, **{"rows_at_a_time": 32, "torch_compile": True, **options.get("tuned", {})})


def common_arguments(options: dict[str, Any], rows_at_a_time: int, torch_compile: bool) -> dict[str, Any]:
    """Arguments that SFT and GRPO share."""
    rows = options["prompts"] * options["group"]
    at_a_time = min(rows, rows_at_a_time or rows)
    return {
        "per_device_train_batch_size": at_a_time,
        "gradient_accumulation_steps": rows // at_a_time,
        "max_steps": ENDLESS,
        "learning_rate": options["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "torch_compile": torch_compile and can_compile(),
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": options["seed"],
    }


def can_compile() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


class PhaseClock:
    """Adds up the time that a trainer spends in its own methods, from outside.

    Args:
        trainer: of TRL, whose methods are wrapped: collecting, generating and rewarding, where it has them.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.spent: dict[str, float] = defaultdict(float)
        self.step_started = 0.0
        self._inputs: list[dict[str, Tensor]] = []
        self._completions: list[list[int]] = []
        if hasattr(trainer, "_generate_single_turn"):
            self.trainer._generate_single_turn = self._timed(
                self._with_prefill(self.trainer._generate_single_turn), "generate"
            )
            self.trainer._calculate_rewards = self._timed(
                self._seeing_completions(self.trainer._calculate_rewards), "reward"
            )
            self.trainer._prepare_inputs = self._timed(self.trainer._prepare_inputs, "collect")
        else:
            self.trainer.compute_loss = self._seeing_inputs(self.trainer.compute_loss)

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call, and `step` since the trainer began the step."""
        spent, self.spent = self.spent, defaultdict(float)
        spent["step"] = time.perf_counter() - self.step_started
        return spent

    def take_rows(self) -> list[Row]:
        """Lengths of prompts and responses that were trained on since the last call."""
        found: list[Row] = [(PROMPT_LENGTH, len(tokens)) for tokens in self._completions]
        for inputs in self._inputs:
            response = (inputs["labels"] != -100).sum(-1)
            prompt = inputs["attention_mask"].sum(-1) - response
            found += zip(prompt.tolist(), response.tolist(), strict=True)
        self._inputs, self._completions = [], []
        return found

    def _timed(self, method: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.spent[phase] += time.perf_counter() - started

        return call

    def _seeing_completions(self, calculate_rewards: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(calculate_rewards)
        def call(inputs: Any, prompts: Any, completions: Any, completion_ids: list[list[int]]) -> Any:
            self._completions = completion_ids
            return calculate_rewards(inputs, prompts, completions, completion_ids)

        return call

    def _seeing_inputs(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute_loss)
        def call(model: nn.Module, inputs: dict[str, Tensor], *arguments: Any, **named: Any) -> Any:
            self._inputs.append(inputs)
            return compute_loss(model, inputs, *arguments, **named)

        return call

    def _with_prefill(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """The same with the forward passes over more than one token timed; the model has no hooks while it trains."""
        started = 0.0

        def before(module: nn.Module, arguments: Any, named: dict[str, Any]) -> None:
            nonlocal started
            started = time.perf_counter()

        def after(module: nn.Module, arguments: Any, named: dict[str, Any], output: Any) -> None:
            tokens = named.get("input_ids")
            if tokens is not None and tokens.shape[-1] > 1:
                self.spent["prefill"] += time.perf_counter() - started

        @functools.wraps(generate)
        def call(*arguments: Any, **named: Any) -> Any:
            model = self.trainer.model
            hooks = [
                model.register_forward_pre_hook(before, with_kwargs=True),
                model.register_forward_hook(after, with_kwargs=True),
            ]
            try:
                return generate(*arguments, **named)
            finally:
                for hook in hooks:
                    hook.remove()

        return call


class Pace(TrainerCallback):
    """Lets a trainer take as many steps as are asked for, and wait in between.

    Args:
        contestant: whose steps are timed.
        orders: numbers of steps.
        report: takes the timings of one order.
    """

    def __init__(
        self, contestant: TrlContestant, orders: Iterator[int], report: Callable[[list[StepTiming]], None]
    ) -> None:
        self.contestant, self.orders, self.report = contestant, orders, report
        self.timings: list[StepTiming] = []
        self.wanted = 0
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Wait for the first order."""
        self._next(control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The batch is there; what follows is the trainer's own step."""
        self.contestant.clock.step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note the step's time; after the last one of an order, wait for the next order."""
        self.timings.append(self.contestant.timing(time.perf_counter() - self.started))
        if len(self.timings) == self.wanted:
            self.report(self.timings)
            self._next(control)
        self.started = time.perf_counter()

    def _next(self, control: Any) -> None:
        self.timings, self.wanted = [], next(self.orders, 0)
        control.should_training_stop = not self.wanted
        self.started = time.perf_counter()
