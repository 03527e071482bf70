"""Decoding in memory of fixed size: the same as plain decoding, also when a step is only a recording of itself.

A GPU replays a recorded step on the same memory without running any Python. `Tape` does so on a CPU: it notes every
operation with its tensors, and on replay runs them again into the memory of the first outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from braid.policies import CausalPolicy, tiny
from braid.policies.adapters import Adapter
from braid.policies.small import character_tokenizer
from braid.rollout import sampler, static
from braid.rollout.decoder import Decoder
from braid.rollout.sampler import Samples, Sampling, sample
from braid.rollout.static import NoRecorder, Recorder, StaticDecoder, decodes_statically, make_decoder

PROMPTS = [[40, 50], [60], [7, 8, 9, 10, 11, 12, 13], [33, 34, 35, 36], [90, 80, 70]]
EOS = 1
WAITS_FOR_THE_GPU = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")


class Tape(TorchDispatchMode):
    """Operations as they are run; a replay repeats them on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.__name__.split(".")[0] not in WAITS_FOR_THE_GPU, function
        output = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, output))
        return output

    def replay(self) -> None:
        for function, args, kwargs, output in self.operations:
            read = {memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            for old, new in zip(tree_leaves(output), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and memory(old) not in read:  # no view of what it read
                    old.copy_(new)


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class TapeRecorder:
    """Records on a tape; `tapes` has them all."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def rehearse(self, step: Callable[[], None]) -> None:
        step()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            step()
        self.tapes.append(tape)
        turns = iter([lambda: None])  # a tape does what it records, so the first turn is taken
        return lambda: next(turns, tape.replay)()


@pytest.fixture(params=[NoRecorder, TapeRecorder])
def recorder(request: pytest.FixtureRequest) -> Recorder:
    return request.param()


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms and row counts change every few steps."""
    monkeypatch.setattr(
        static, "RECORDED", replace(static.RECORDED, ahead=5, fewest_rows=2, long_enough=1, rows=3, room=4)
    )


def lively_policy(policy: CausalPolicy | None = None, *, autocast: bool = False) -> CausalPolicy:
    """A random policy whose tokens depend on the context, and that ends responses after some tokens."""
    policy = policy or tiny(1.2e5, seed=3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    bias = torch.zeros(policy.model.get_output_embeddings().weight.shape[0])
    bias[EOS] = 1.5
    policy.model.get_output_embeddings().bias = nn.Parameter(bias)
    policy.autocast = autocast
    return policy


def made_policy(name: str, **options: Any) -> CausalPolicy:
    tokenizer = character_tokenizer()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**ids, **options)
    return CausalPolicy(transformers.AutoModelForCausalLM.from_config(config), tokenizer)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@contextlib.contextmanager
def decoding(policy: CausalPolicy) -> Iterator[None]:
    with torch.no_grad(), policy.precision():
        yield


@contextlib.contextmanager
def sampling_with(make: Callable[..., Decoder]) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(sampler, "make_decoder", make)
    yield
    patch.undo()


def assert_same(found: Samples, expected: Samples, tolerance: float = 1e-5) -> None:
    assert found.tokens == expected.tokens
    assert found.truncated.tolist() == expected.truncated.tolist()
    for one, other in zip(found.log_probs, expected.log_probs, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


# the same as plain decoding


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("prompts", [PROMPTS, [PROMPTS[2], PROMPTS[2][::-1]]], ids=["padded", "equal lengths"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.usefixtures("small_sizes")
def test_samples_are_those_of_the_plain_decoder(
    architecture: Any, prompts: list[list[int]], temperature: float, recorder: Recorder
) -> None:
    policy = lively_policy(tiny(1.2e5, architecture=architecture, seed=3))
    drawn = []
    for kind in (Decoder, lambda *a: StaticDecoder(*a, recorder=recorder)):
        with sampling_with(kind):
            generator = torch.Generator().manual_seed(0)
            drawn.append(sample(policy, prompts, Sampling(50, temperature), group_size=4, generator=generator))
    assert_same(drawn[1], drawn[0])
    assert len({len(row) for row in drawn[0].tokens}) > 1  # some left


def test_samples_are_the_same_with_the_sizes_of_real_use(recorder: Recorder) -> None:
    policy = lively_policy()
    drawn = []
    for kind in (Decoder, lambda *a: StaticDecoder(*a, recorder=recorder)):
        with sampling_with(kind):
            generator = torch.Generator().manual_seed(1)
            drawn.append(sample(policy, PROMPTS, Sampling(60), group_size=16, generator=generator))
    assert_same(drawn[1], drawn[0])


def test_logits_step_by_step_with_rows_leaving_in_any_order(recorder: Recorder, small_sizes: None) -> None:
    policy = lively_policy()
    with decoding(policy):
        decoders = (Decoder(policy, PROMPTS, 3, 30), StaticDecoder(policy, PROMPTS, 3, 30, recorder=recorder))
        for step in range(29):
            plain, fixed = decoders
            torch.testing.assert_close(fixed.logits, plain.logits, atol=2e-5, rtol=1e-5)
            rows = len(plain.logits)
            if step % 4 == 2 and rows > 1:
                stay = torch.randperm(rows, generator=torch.Generator().manual_seed(step))[: max(1, rows * 3 // 4)]
                for decoder in decoders:
                    decoder.keep(stay)
                torch.testing.assert_close(fixed.logits, plain.logits, atol=2e-5, rtol=1e-5)
            chosen = (torch.arange(len(plain.logits)) * 7 + step) % 90 + 3
            for decoder in decoders:
                decoder.advance(chosen)
    assert len(plain.logits) == 1


@pytest.mark.usefixtures("small_sizes")
def test_rows_in_equal_blocks(recorder: Recorder) -> None:
    policy = lively_policy()
    prompts = [*PROMPTS[:2], *PROMPTS[3:]]
    with decoding(policy):
        decoders = (Decoder(policy, prompts, 3, 24, 2), StaticDecoder(policy, prompts, 3, 24, 2, recorder=recorder))
        plain, fixed = decoders
        for step in range(23):
            half = len(plain.logits) // 2
            if step in (4, 9):
                stay = torch.arange(half)[step % 2 :: 2]
                for decoder in decoders:
                    decoder.keep(torch.cat((stay, half + stay)))
            torch.testing.assert_close(fixed.logits, plain.logits, atol=2e-5, rtol=1e-5)
            for decoder in decoders:
                decoder.advance(torch.arange(len(plain.logits)) * 3 + step + 3)
    assert len(fixed.logits) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: made_policy("GPT2Config", n_embd=64, n_layer=2, n_head=4, n_positions=256),
        lambda: made_policy("Qwen2Config", **SIZES),
        lambda: made_policy("GraniteConfig", **SIZES, logits_scaling=3.0),
    ],
    ids=["gpt2", "qwen2", "granite"],
)
@pytest.mark.usefixtures("small_sizes")
def test_other_architectures(make: Callable[[], CausalPolicy], recorder: Recorder) -> None:
    policy = make()
    with sampling_with(Decoder):
        expected = sample(policy, PROMPTS, Sampling(20, temperature=0), group_size=2)
    with sampling_with(lambda *a: StaticDecoder(*a, recorder=recorder)):
        assert_same(sample(policy, PROMPTS, Sampling(20, temperature=0), group_size=2), expected)


@pytest.mark.usefixtures("small_sizes")
def test_an_adapter(recorder: Recorder, tmp_path: Any) -> None:
    tiny(1.2e5, seed=3).save(tmp_path)
    policy = CausalPolicy.load(tmp_path, adapter=Adapter("lora", rank=4), device="cpu")
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    with sampling_with(Decoder):
        expected = sample(policy, PROMPTS, Sampling(20, temperature=0), group_size=2)
    with sampling_with(lambda *a: StaticDecoder(*a, recorder=recorder)):
        assert_same(sample(policy, PROMPTS, Sampling(20, temperature=0), group_size=2), expected)


# memory


def test_room_and_rows_change_as_rarely_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, recorder = lively_policy(), TapeRecorder()
    monkeypatch.setattr(
        static, "RECORDED", replace(static.RECORDED, ahead=8, fewest_rows=4, long_enough=6, rows=4, room=8)
    )
    rooms, counts = [], []
    with decoding(policy):
        decoder = StaticDecoder(policy, [[5, 6, 7]], 14, 40, recorder=recorder)  # 43 positions
        for step in range(39):
            if step == 20:
                decoder.keep(torch.arange(10))  # moved up, but more than half is left
            if step == 25:
                decoder.keep(torch.arange(0, 10, 3))  # 4 of 16
            if step == 36:
                decoder.keep(torch.arange(1))  # too late to record again
            decoder.advance(torch.full((len(decoder.logits),), 9))
            rooms.append(decoder._mask.shape[-1])
            counts.append(len(decoder._tokens))
    assert sorted(set(rooms)) == [16, 48]
    assert rooms.index(48) == 16 - 3
    assert counts == [16] * 25 + [4] * 14
    assert len(recorder.tapes) == 3  # one for each pair


def test_spare_rows_are_not_shown() -> None:
    policy = lively_policy()
    with decoding(policy):
        decoder = StaticDecoder(policy, PROMPTS, 1, 20)
        assert decoder._tokens.shape == (8, 1)
        assert decoder.logits.shape == (5, len(policy.tokenizer))
        decoder.advance(torch.tensor([3, 4, 5, 6, 7]))
        assert decoder.logits.shape == (5, len(policy.tokenizer))


def test_a_recording_sees_the_weights_of_its_time_in_memory(small_sizes: None) -> None:
    """Weights that an optimiser changes in place are read where they are; a new decoder sees them too."""
    policy, chosen = lively_policy(), torch.tensor([3, 4])
    with decoding(policy):
        decoder = StaticDecoder(policy, PROMPTS[:2], 1, 12, recorder=TapeRecorder())
        for _ in range(3):
            decoder.advance(chosen)
        before = decoder.logits.clone()
        policy.model.model.norm.weight.mul_(2.0)
        decoder.advance(chosen)
        plain = Decoder(policy, PROMPTS[:2], 1, 12)
        for _ in range(4):
            plain.advance(chosen)
    torch.testing.assert_close(decoder.logits, plain.logits, atol=2e-5, rtol=1e-5)
    assert (decoder.logits - before).abs().max() > 0.1


# autocast


def casts(tape: Tape, smallest: int) -> list[Tensor]:
    """What is cast from one floating type to another."""
    return [
        args[0]
        for function, args, _, output in tape.operations
        if function.__name__.startswith("_to_copy") and output.is_floating_point() and args[0].numel() >= smallest
    ]


@pytest.mark.usefixtures("small_sizes")
def test_under_autocast_logits_are_equal_and_neither_weights_nor_cache_are_cast_in_a_step() -> None:
    policy, recorder = lively_policy(autocast=True), TapeRecorder()
    with decoding(policy):
        plain, fixed = Decoder(policy, PROMPTS, 2, 12), StaticDecoder(policy, PROMPTS, 2, 12, recorder=recorder)
        for step in range(11):
            for decoder in (plain, fixed):
                decoder.advance(torch.arange(10) + step + 3)
            error = (fixed.logits.float() - plain.logits.float()).norm() / plain.logits.float().norm()
            assert error < 1e-2
        assert fixed._layers[0].keys.dtype == torch.bfloat16
    smallest_weight = min(p.numel() for p in policy.model.parameters() if p.ndim == 2)
    assert not casts(recorder.tapes[-1], smallest_weight)
    assert {x.dtype for x in policy.model.parameters()} == {torch.float32}


@pytest.mark.usefixtures("small_sizes")
def test_a_recording_reads_casts_of_its_own_and_not_those_that_autocast_may_drop() -> None:
    policy, recorder = lively_policy(autocast=True), TapeRecorder()
    with decoding(policy):
        decoder = StaticDecoder(policy, PROMPTS[:2], 1, 12, recorder=recorder)
        for token in (3, 4):
            decoder.advance(torch.tensor([token, token]))
    operations = recorder.tapes[-1].operations
    read = {memory(x) for _, *inputs, _ in operations for x in tree_leaves(inputs) if isinstance(x, Tensor)}
    linear = [module for module in policy.model.modules() if isinstance(module, nn.Linear)]
    assert len(decoder._weights) == len(linear) + 1  # and the bias of the head
    assert {memory(weight) for weight in decoder._weights.values()} <= read
    assert not {memory(module.weight) for module in linear if module is not policy.model.lm_head} & read


# which decoder


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: lively_policy(), True),
        (lambda: lively_policy(autocast=True), True),
        (lambda: made_policy("GPT2Config", n_embd=64, n_layer=2, n_head=4, n_positions=256), True),
        (lambda: made_policy("MistralConfig", **SIZES, sliding_window=16), False),
        (lambda: made_policy("BloomConfig", hidden_size=64, n_layer=2, n_head=4), False),
        (lambda: made_policy("MambaConfig", hidden_size=64, num_hidden_layers=2, state_size=8), False),
    ],
    ids=["qwen3", "autocast", "gpt2", "sliding window", "alibi", "recurrent"],
)
def test_models_that_can_be_decoded_statically(make: Callable[[], CausalPolicy], expected: bool) -> None:
    policy = make()
    with decoding(policy):
        assert decodes_statically(policy) is expected


def test_a_model_that_gives_other_logits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = lively_policy()
    monkeypatch.setattr(StaticDecoder, "_first_mask", lambda self, prompt: torch.zeros(8, 1, 1, 64))
    with decoding(policy):
        assert not decodes_statically(policy)


def test_without_a_gpu_decoding_is_plain() -> None:
    policy = lively_policy()
    with decoding(policy):
        assert type(make_decoder(policy, PROMPTS, 1, 100)) is Decoder


def test_the_choice_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(CausalPolicy):
        device = torch.device("cuda")

    policy = lively_policy()
    policy.__class__ = OnGpu
    made: list[str] = []
    monkeypatch.setattr(static, "StaticDecoder", lambda *a: made.append("static"))
    monkeypatch.setattr(static, "Decoder", lambda *a: made.append("plain"))
    monkeypatch.setattr(static, "decodes_statically", lambda *a: True)
    make_decoder(policy, PROMPTS, 1, 16)
    make_decoder(policy, PROMPTS, 1, 15)  # too short
    monkeypatch.setenv("BRAID_CUDA_GRAPHS", "0")
    make_decoder(policy, PROMPTS, 1, 100)
    assert made == ["static", "plain", "plain"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.usefixtures("small_sizes")
def test_cuda_graphs_give_the_samples_of_the_plain_decoder(autocast: bool) -> None:
    policy = lively_policy(autocast=autocast)
    policy.model.to("cuda")
    with decoding(policy):
        assert decodes_statically(policy)
        assert type(make_decoder(policy, PROMPTS, 2, 40)) is StaticDecoder
        decoders = (Decoder(policy, PROMPTS, 4, 40), StaticDecoder(policy, PROMPTS, 4, 40))
        for step in range(39):
            plain, fixed = (decoder.logits.float() for decoder in decoders)
            assert (plain - fixed).norm() <= (5e-2 if autocast else 1e-4) * plain.norm()
            for decoder in decoders:
                if step % 10 == 9:
                    decoder.keep(torch.arange(0, len(plain), 2, device="cuda"))
                decoder.advance(torch.arange(len(decoder.logits), device="cuda") + step)
