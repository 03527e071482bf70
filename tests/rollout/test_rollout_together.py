"""Policies that decode as one: each writes what it would have written alone, with as much randomness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn

from braid.policies import CausalPolicy, tiny
from braid.policies.seat import Table
from braid.rollout import sampler, static
from braid.rollout.decoder import Decoder
from braid.rollout.sampler import Samples, Sampling, sample
from braid.rollout.static import StaticDecoder, decodes_statically
from braid.training.meeting import Member, hold

PROMPTS = [[40, 50], [60], [7, 8, 9, 10, 11, 12, 13], [33, 34, 35, 36], [90, 80, 70]]
EOS = 1


def lively_policy(seed: int, boost: float) -> CausalPolicy:
    """A random policy whose tokens depend on the context; its responses are the shorter the larger `boost` is."""
    policy = tiny(1.2e5, seed=seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    bias = torch.zeros(len(policy.tokenizer))
    bias[EOS] = boost
    policy.model.lm_head.bias = nn.Parameter(bias)
    return policy


@dataclass
class Writer:
    """What one policy is asked to write, one `sample` for each list of prompts, and what came of it."""

    seed: int
    boost: float
    asked: list[list[list[int]]]
    drawn: list[Samples] = field(default_factory=list)
    told: dict[int, list[int]] = field(default_factory=dict)
    randomness: Any = None

    def write(self, policy: CausalPolicy, sampling: Sampling, **options: Any) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def listen(rows: list[int], tokens: list[list[int]]) -> None:
            self.told |= {1000 * len(self.drawn) + row: one for row, one in zip(rows, tokens, strict=True)}

        for prompts in self.asked:
            self.drawn.append(sample(policy, prompts, sampling, generator=generator, on_finished=listen, **options))
        self.randomness = generator.get_state()


CASES: dict[str, tuple[Callable[[int], list[list[list[int]]]], Sampling, dict[str, Any]]] = {
    "alike": (lambda n: [PROMPTS], Sampling(48), {"group_size": 4}),
    "cut distribution": (lambda n: [PROMPTS], Sampling(30, 0.7, top_p=0.8, top_k=20), {"group_size": 3}),
    "greedy": (lambda n: [PROMPTS], Sampling(30, temperature=0), {"group_size": 2}),
    "stop strings": (lambda n: [PROMPTS], Sampling(30, stop=("a", "Q")), {"group_size": 3}),
    "other prompts": (lambda n: [PROMPTS[n:]], Sampling(40), {"group_size": 5}),
    "other parts": (lambda n: [PROMPTS[: 5 - 2 * n]], Sampling(40), {"group_size": 3, "batch_size": 6}),
    "other calls": (lambda n: [PROMPTS[:2]] * (3 - n), Sampling(40), {"group_size": 4}),
}


@pytest.fixture
def static_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of fixed size, which changes every few steps."""
    sizes = replace(static.RECORDED, ahead=5, fewest_rows=2, long_enough=1, rows=3, room=4)
    monkeypatch.setattr(static, "RECORDED", sizes)
    monkeypatch.setattr(sampler, "make_decoder", StaticDecoder)


@pytest.mark.parametrize("decoder", ["plain", "static"])
@pytest.mark.parametrize("case", CASES)
def test_each_writes_what_it_would_have_written_alone(case: str, decoder: str, request: pytest.FixtureRequest) -> None:
    asked, sampling, options = CASES[case]
    settings = [(seed, boost, asked(n)) for n, (seed, boost) in enumerate([(3, 3.0), (4, 0.5), (5, 1.8)])]
    alone, together = [Writer(*one) for one in settings], [Writer(*one) for one in settings]
    for writer in alone:
        writer.write(lively_policy(writer.seed, writer.boost), sampling, **options)
    table = Table()
    if decoder == "static":
        request.getfixturevalue("static_decoder")

    def body(writer: Writer) -> Callable[[Member[None]], None]:
        return lambda member: writer.write(
            table.seat(lively_policy(writer.seed, writer.boost), member.ask), sampling, **options
        )

    for outcome in hold([body(writer) for writer in together]):
        outcome.result()
    for mine, theirs in zip(together, alone, strict=True):
        assert len(mine.drawn) == len(theirs.drawn)
        for one, other in zip(mine.drawn, theirs.drawn, strict=True):
            assert one.tokens == other.tokens
            assert one.truncated.tolist() == other.truncated.tolist()
            for found, expected in zip(one.log_probs, other.log_probs, strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
                assert not found.requires_grad
        assert mine.told == theirs.told
        assert torch.equal(mine.randomness, theirs.randomness)
    lengths = [sum(map(len, writer.drawn[0].tokens)) / len(writer.drawn[0].tokens) for writer in together]
    assert max(lengths) > 1.5 * min(lengths)  # some leave the batch long before others


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.usefixtures("static_decoder")
def test_a_static_decoder_keeps_blocks_of_rows_equal(autocast: bool) -> None:
    table = Table()
    for seed in range(3):
        policy = lively_policy(seed, 0.0)
        policy.autocast = autocast
        table.seat(policy, lambda *arguments: None)
    policies = table.as_one([0, 1, 2])
    prompts = [[token + number for token in prompt] for number in range(3) for prompt in PROMPTS]
    with torch.no_grad(), policies.precision():
        assert decodes_statically(policies, 3)
        decoders = [kind(policies, prompts, 2, 30, 3) for kind in (Decoder, StaticDecoder)]
        for step in range(20):
            plain, fixed = decoders
            tolerance = 0.02 * float(plain.logits.abs().max()) if autocast else 2e-5
            torch.testing.assert_close(fixed.logits, plain.logits, atol=tolerance, rtol=0)
            width = len(plain.logits) // 3
            if step % 4 == 1 and width > 1:
                own = [torch.randperm(width)[: width * 3 // 4] + number * width for number in range(3)]
                for decoder in decoders:
                    decoder.keep(torch.cat(own))
            chosen = (torch.arange(len(plain.logits)) * 7 + step) % 90 + 3
            for decoder in decoders:
                decoder.advance(chosen)


def test_a_policy_that_has_diverged_leaves_the_others_alone() -> None:
    writers = [Writer(seed, 1.0, [PROMPTS]) for seed in (3, 4, 5)]
    table = Table()

    def body(writer: Writer) -> Callable[[Member[None]], None]:
        def run(member: Member[None]) -> None:
            policy = lively_policy(writer.seed, writer.boost)
            seat = table.seat(policy, member.ask)
            writer.write(seat, Sampling(20), group_size=2)
            if writer.seed == 4:
                with torch.no_grad():
                    policy.model.model.norm.weight.fill_(float("nan"))
            writer.write(seat, Sampling(20), group_size=2)

        return run

    outcomes = hold([body(writer) for writer in writers])
    assert "have diverged" in str(outcomes[1].exception())
    for number in (0, 2):
        outcomes[number].result()
        first, second = writers[number].drawn
        assert first.tokens == second.tokens
