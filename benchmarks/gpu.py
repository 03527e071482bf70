"""How much of a GPU is used: prefill, decoding and update of a model of the shape of Qwen2.5-0.5B, beside Transformers
and TRL, and how far that is from what the GPU could do at best.

    python benchmarks/gpu.py                          # on the first CUDA device
    python benchmarks/gpu.py --device cpu --small     # the same on small sizes in seconds; its numbers mean nothing

Nothing is downloaded; the weights are random. Peaks are measured here, not taken from a data sheet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from clock import Clock
from qwen_shaped import (
    QWEN,
    SMALL,
    GivenRollouts,
    Shape,
    make_learner,
    make_policy,
    write_result,
)
from rich.console import Console
from rich.table import Table
from trl_step import trl_steps

from braid.methods.rlvr.grpo import GRPO
from braid.rollout.decoder import Decoder
from braid.rollout.sampler import Sampling, sample
from braid.rollout.static import SWITCH, StaticDecoder, decodes_statically
from braid.training.settings import Settings

SECTIONS = ("prefill", "decode", "sample", "update", "step")
WEIGHTS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True)
class Sizes:
    """What is timed.

    Args:
        shape: of the model.
        matmul: rows and columns of the matrices multiplied.
        copied: bytes.
        prefill: rows and tokens of each.
        batches: rows decoded together.
        prompt: tokens.
        response: tokens.
        update: rows in groups of 4, prompt tokens and response tokens.
        micro_batch_tokens: of the update.
        step: prompts and group size of a whole step.
    """

    shape: Shape = QWEN
    matmul: int = 8192
    copied: int = 2**30
    prefill: tuple[int, int] = (64, 512)
    batches: tuple[int, ...] = (64, 256)
    prompt: int = 256
    response: int = 256
    update: tuple[int, int, int] = (64, 256, 512)
    micro_batch_tokens: int = 16384
    step: tuple[int, int] = (8, 8)


SMALL_SIZES = Sizes(SMALL, 128, 2**20, (4, 16), (4, 8), 16, 20, (8, 8, 8), 128, (2, 4))


class Bench:
    """All measurements on one model.

    Args:
        sizes: what is timed.
        clock: how.
        weights: type of the stored weights; float32 computes in bfloat16 by autocast on a GPU.
    """

    def __init__(self, sizes: Sizes, clock: Clock, weights: str) -> None:
        self.sizes, self.clock, self.weights = sizes, clock, weights
        self.device = str(clock.device)
        self.rows: list[dict[str, Any]] = []
        self.policy = make_policy(sizes.shape, WEIGHTS[weights], self.device)
        self.policy.model.generation_config.eos_token_id = None  # `generate` writes as much as it may
        self.peaks = self._peaks()
        with torch.no_grad(), self.policy.precision():
            self.static = decodes_statically(self.policy)

    def _peaks(self) -> dict[str, float]:
        size, half = self.sizes.matmul, torch.bfloat16
        a, b = (torch.randn(size, size, device=self.device).to(half) for _ in range(2))
        out = torch.empty_like(a)
        source = torch.empty(self.sizes.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        multiplied = self.clock.seconds(lambda: [torch.mm(a, b, out=out) for _ in range(10)])
        copied = self.clock.seconds(lambda: [target.copy_(source) for _ in range(10)])
        return {
            "bf16_flops": 10 * 2 * size**3 / median(multiplied),
            "bytes_per_second": 10 * 2 * source.numel() / median(copied),
        }

    def prompts(self, rows: int, tokens: int) -> list[list[int]]:
        """Prompts of one length."""
        return torch.randint(2, 90, (rows, tokens)).tolist()

    def add(self, what: str, tokens: float, seconds: list[float], **more: Any) -> dict[str, Any]:
        """Note a measurement and print it."""
        row = {"what": what, "weights": self.weights, "tokens_per_second": tokens / median(seconds), "seconds": seconds}
        self.rows.append({**row, **more})
        console.print(f"  {what}: {row['tokens_per_second']:,.0f} tokens/s")
        return self.rows[-1]

    # the sections

    @torch.no_grad()
    def prefill(self) -> None:
        """Reading prompts."""
        rows, tokens = self.sizes.prefill
        prompts = self.prompts(rows, tokens)
        with self.policy.precision():
            seconds = self.clock.seconds(lambda: Decoder(self.policy, prompts, 1, 1))
        flops = 2.0 * self.sizes.shape.layer_weights * rows * tokens
        self.add(
            f"prefill {rows} x {tokens}",
            rows * tokens,
            seconds,
            share_of_peak=flops / median(seconds) / self.peaks["bf16_flops"],
        )

    @torch.no_grad()
    def decode(self) -> None:
        """The decoders alone, without choosing tokens: all steps, and the second half, which records nothing."""
        with self.policy.precision():
            for batch in self.sizes.batches:
                for name, kind in (("eager", Decoder), ("static", StaticDecoder)):
                    runs = [self._decode(kind, batch) for _ in range(self.clock.repeats + 1)][1:]
                    floor, late_floor = self._floor(batch, 0), self._floor(batch, self.sizes.response // 2)
                    whole, late = ([run[part] for run in runs] for part in range(2))
                    half = self.sizes.response - self.sizes.response // 2
                    self.add(
                        f"decoder {name}, batch {batch}",
                        batch * self.sizes.response,
                        whole,
                        share_of_floor=floor / median(whole),
                        steady_tokens_per_second=batch * half / median(late),
                        steady_share_of_floor=late_floor / median(late),
                    )

    def _decode(self, kind: type[Decoder], batch: int) -> tuple[float, float]:
        response = self.sizes.response
        decoder = kind(self.policy, self.prompts(batch, self.sizes.prompt), 1, response + 1)
        chosen = torch.randint(2, 90, (batch,), device=self.device)
        started = self.clock.now()
        for step in range(response):
            if step == response // 2:
                middle = self.clock.now()
            decoder.advance(chosen)
        ended = self.clock.now()
        return ended - started, ended - middle

    def _floor(self, batch: int, first: int) -> float:
        """Seconds to read weights and cache once for every step from the `first` on."""
        weights = 2 * sum(parameter.numel() for parameter in self.policy.model.parameters())
        steps = range(first, self.sizes.response)
        cache = sum(self.sizes.prompt + step + 1 for step in steps) * self.sizes.shape.key_value_bytes(2) * batch
        return (weights * len(steps) + cache) / self.peaks["bytes_per_second"]

    def sample(self) -> None:
        """Whole responses: prefill, decoding and choosing tokens, in Braid and in Transformers."""
        for batch in self.sizes.batches:
            prompts = self.prompts(batch, self.sizes.prompt)
            for name, switch in (("eager", "0"), ("as it comes", "1")):
                os.environ[SWITCH] = switch
                self._add_sampling(f"braid sample, {name}, batch {batch}", lambda p=prompts: self._sample(p))
            self._add_sampling(f"transformers generate, batch {batch}", lambda p=prompts: self._generate(p))

    def _add_sampling(self, what: str, work: Callable[[], int]) -> None:
        written: list[int] = []
        row: dict[str, Any] = {}
        with self.clock.peak_memory(row):
            seconds = self.clock.seconds(lambda: written.append(work()))
        self.add(what, median(written), seconds, **row)

    def _sample(self, prompts: list[list[int]]) -> int:
        return sum(map(len, sample(self.policy, prompts, Sampling(self.sizes.response)).tokens))

    def _generate(self, prompts: list[list[int]]) -> int:
        tokens = torch.tensor(prompts, device=self.device)
        with torch.no_grad(), self.policy.precision():
            written = self.policy.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=True,
                top_k=0,
                max_new_tokens=self.sizes.response,
                pad_token_id=0,
            )
        return written.numel() - tokens.numel()

    def update(self) -> None:
        """Forward, backward and AdamW, as the learner does them."""
        rows, prompt, response = self.sizes.update
        method = GivenRollouts(group_size=4, prompt_tokens=prompt, response_tokens=response)
        learner = make_learner(
            self.policy, method, self._settings(rows // 4), prompt_tokens=prompt, max_new_tokens=response
        )
        row: dict[str, Any] = {}
        with self.clock.peak_memory(row):
            seconds = [learner.step(0.0)["time/update"] for _ in range(self.clock.repeats + 1)][1:]
        flops = rows / 4 * self.sizes.shape.update_flops(prompt, response, 4)
        self.add(
            f"update {rows} x {prompt + response}",
            rows * (prompt + response),
            seconds,
            share_of_peak=flops / median(seconds) / self.peaks["bf16_flops"],
            **row,
        )

    def _settings(self, prompts: int) -> Settings:
        return Settings(
            device=self.device,
            learning_rate=1e-6,
            prompts_per_step=prompts,
            micro_batch_tokens=self.sizes.micro_batch_tokens,
        )

    def step(self) -> None:
        """A whole step of GRPO, in Braid and, if it is installed, in TRL."""
        prompts, group = self.sizes.step
        tokens, row = prompts * group * self.sizes.response, {}
        learner = make_learner(
            self.policy,
            GRPO(group_size=group),
            self._settings(prompts),
            prompt_tokens=self.sizes.prompt,
            max_new_tokens=self.sizes.response,
        )
        with self.clock.peak_memory(row):
            seconds = self.clock.seconds(lambda learner=learner: learner.step(0.0))
        self.add(f"braid GRPO step {prompts} x {group}", tokens, seconds, **row)
        learner.optimizer.state.clear()  # TRL needs the memory
        row = {}
        try:
            with self.clock.peak_memory(row):
                ends = trl_steps(
                    self.policy,
                    prompts=prompts,
                    group=group,
                    prompt_tokens=self.sizes.prompt,
                    response_tokens=self.sizes.response,
                    steps=self.clock.repeats + 2,
                    now=self.clock.now,
                )
        except (ImportError, torch.OutOfMemoryError) as error:
            console.print(f"  TRL is left out: {error}")
            return
        seconds = [later - earlier for earlier, later in pairwise(ends)][1:]
        self.add(f"trl GRPO step {prompts} x {group}", tokens, seconds, **row)


def show(results: list[Bench]) -> None:
    """Print the table."""
    peaks = results[0].peaks
    title = f"peak {peaks['bf16_flops'] / 1e12:,.1f} TFLOP/s bf16, {peaks['bytes_per_second'] / 1e9:,.0f} GB/s"
    columns = {
        "tokens/s": ("tokens_per_second", "{:,.0f}"),
        "of bf16 peak": ("share_of_peak", "{:.1%}"),
        "of memory floor": ("share_of_floor", "{:.1%}"),
        "steady tokens/s": ("steady_tokens_per_second", "{:,.0f}"),
        "steady of floor": ("steady_share_of_floor", "{:.1%}"),
        "peak GiB": ("peak_gib", "{:.1f}"),
    }
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("weights")
    for name in columns:
        table.add_column(name, justify="right")
    for row in (row for bench in results for row in bench.rows):
        cells = [form.format(row[key]) if key in row else "" for key, form in columns.values()]
        table.add_row(row["what"], row["weights"], *cells)
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    parser.add_argument("--small", action="store_true", help="a tiny model and short rows: does it run?")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    parser.add_argument("--weights", nargs="+", choices=list(WEIGHTS), default=list(WEIGHTS), help="types of weights")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each thing, after one that does not count")
    parser.add_argument(
        "--micro-batch-tokens", type=int, default=0, help="of the update; 0 is 16384; less takes less memory"
    )
    parser.add_argument("--output", default="benchmarks/results/gpu.json", help="JSON file")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {arguments.device}, but there is no CUDA device; try --device cpu --small")
    sizes = SMALL_SIZES if arguments.small else Sizes()
    if arguments.micro_batch_tokens:
        sizes = replace(sizes, micro_batch_tokens=arguments.micro_batch_tokens)
    results = []
    for weights in arguments.weights:
        console.print(f"{weights} weights")
        results.append(Bench(sizes, Clock(arguments.device, arguments.repeats), weights))
        for section in (name for name in SECTIONS if name in arguments.only):
            getattr(results[-1], section)()
        del results[-1].policy  # the next one needs the memory
    show(results)
    content = {
        "sizes": sizes,
        "peaks": results[0].peaks,
        "static_decoding": {bench.weights: bench.static for bench in results},
        "rows": [row for bench in results for row in bench.rows],
    }
    write_result(arguments.output, content, arguments)


if __name__ == "__main__":
    main()
