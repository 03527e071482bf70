"""Adapters: they start at the base, train alone, and come back from disk exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from braid.data.ragged import build_rollouts
from braid.data.records import Rollouts
from braid.errors import StorageError, UsageError
from braid.policies import CausalPolicy, tiny
from braid.policies.adapters import Adapter, AdapterKind

KINDS = ["lora", "dora", "rslora"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny(1.2e5, seed=2).save(path)
    return path


@pytest.fixture
def batch() -> Rollouts:
    return build_rollouts([[5, 6, 7], [8]], [[9, 10, 1], [11, 12, 13, 14]], pad_token_id=0)


def adapted(base: Path, kind: AdapterKind = "lora", *, trained: bool = True, **options: object) -> CausalPolicy:
    """A policy with an adapter; its weights are as after some training."""
    policy = CausalPolicy.load(base, adapter=Adapter(kind, rank=4, **options), device="cpu")  # type: ignore[arg-type]
    if trained:
        torch.manual_seed(0)
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.2)
            elif "magnitude" in name:
                parameter.data *= 1.1
    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(kind: AdapterKind, base: Path, batch: Rollouts) -> None:
    policy = adapted(base, kind, trained=False)
    plain = CausalPolicy.load(base, device="cpu")
    torch.testing.assert_close(policy.score(batch).log_prob, plain.score(batch).log_prob, atol=1e-5, rtol=0)
    assert policy.has_adapter
    assert not plain.has_adapter


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_is_trained(kind: AdapterKind, base: Path, batch: Rollouts) -> None:
    policy = adapted(base, kind)
    names = {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    assert len(policy.parameters()) == len(names)
    policy.score(batch, training=True).log_prob.sum().backward()
    assert {name for name, parameter in policy.model.named_parameters() if parameter.grad is not None} == names


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_base(kind: AdapterKind, base: Path, batch: Rollouts) -> None:
    policy = adapted(base, kind)
    policy.keep_reference()
    plain = CausalPolicy.load(base, device="cpu").score(batch, temperature=0.7).log_prob
    trained = policy.score(batch, temperature=0.7).log_prob
    torch.testing.assert_close(policy.reference_log_prob(batch, temperature=0.7), plain, atol=1e-6, rtol=0)
    assert (trained - plain).abs().max() > 0.01
    torch.testing.assert_close(policy.score(batch, temperature=0.7).log_prob, trained, atol=0, rtol=0)  # on again


@pytest.mark.parametrize("kind", KINDS)
def test_storage_is_exact(kind: AdapterKind, base: Path, batch: Rollouts, tmp_path: Path) -> None:
    policy = adapted(base, kind)
    policy.add_value_head()
    assert policy.value_head is not None
    nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    loaded = CausalPolicy.load(tmp_path, device="cpu")
    assert loaded.has_adapter
    before, after = policy.score(batch), loaded.score(batch)
    assert torch.equal(before.log_prob, after.log_prob)
    assert torch.equal(before.value, after.value)
    assert torch.equal(policy.reference_log_prob(batch), loaded.reference_log_prob(batch))
    trainable = list(policy.parameters())
    assert len(trainable) == len(loaded.parameters()) > 0  # training can go on
    assert all(torch.equal(x, y) for x, y in zip(trainable, loaded.parameters(), strict=True))
    assert loaded.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


def test_the_scale_is_that_of_the_kind(base: Path, batch: Rollouts) -> None:
    """alpha / rank for LoRA, alpha / sqrt(rank) for rsLoRA."""
    lora = adapted(base, "lora", alpha=16.0).score(batch).log_prob
    rslora = adapted(base, "rslora", alpha=8.0).score(batch).log_prob
    torch.testing.assert_close(lora, rslora)


def test_the_first_weights_follow_the_seed_alone(base: Path) -> None:
    before = torch.get_rng_state()
    one = adapted(base, trained=False).parameters()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    same, other = adapted(base, trained=False).parameters(), adapted(base, trained=False, seed=1).parameters()
    assert all(torch.equal(x, y) for x, y in zip(one, same, strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_dropout_is_on_in_training_alone(base: Path, batch: Rollouts) -> None:
    policy = adapted(base, dropout=0.5)
    quiet = policy.score(batch).log_prob
    assert not torch.equal(policy.score(batch, training=True).log_prob, quiet)
    assert torch.equal(policy.score(batch).log_prob, quiet)


def test_targets_are_names_with_or_without_spaces(base: Path) -> None:
    policy = adapted(base, targets="q_proj, v_proj")
    hit = {
        name.split(".lora_")[0].rsplit(".", 1)[-1] for name, _ in policy.model.named_parameters() if ".lora_" in name
    }
    assert hit == {"q_proj", "v_proj"}


def test_targets_that_do_not_exist_are_refused(base: Path) -> None:
    with pytest.raises(UsageError, match=r"targets 'zork' do not fit this model"):
        adapted(base, targets="zork")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0),
        ("rank", 1.5),
        ("alpha", 0.0),
        ("alpha", -1.0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("kind", "zz"),
        ("kind", "none"),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}="):
        Adapter(**{name: value})  # type: ignore[arg-type]


def test_a_second_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapted(base).save(tmp_path)
    with pytest.raises(UsageError, match="holds an adapter already"):
        CausalPolicy.load(tmp_path, adapter=Adapter(), device="cpu")


def test_the_base_is_found_from_another_working_directory(
    base: Path, batch: Rollouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    policy = CausalPolicy.load(base.name, adapter=Adapter(rank=4), device="cpu")
    policy.save(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    loaded = CausalPolicy.load("adapter", device="cpu")
    assert torch.equal(loaded.score(batch).log_prob, policy.score(batch).log_prob)


def test_an_adapter_without_a_tokenizer_takes_that_of_its_base(base: Path, tmp_path: Path) -> None:
    adapted(base).save(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    assert CausalPolicy.load(tmp_path, device="cpu").encode_prompt("ab <think>")


@pytest.mark.parametrize(
    ("named", "message"), [("/gone/base", "there is no directory '/gone/base'"), (None, "does not name its base")]
)
def test_a_missing_base_is_named(named: str | None, message: str, base: Path, tmp_path: Path) -> None:
    adapted(base).save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
    with pytest.raises(StorageError, match=message):
        CausalPolicy.load(tmp_path, device="cpu")


def test_missing_and_damaged_adapter_weights_are_storage_errors(base: Path, tmp_path: Path) -> None:
    adapted(base).save(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"damaged" * 9)
    with pytest.raises(StorageError, match="cannot load a language model from"):
        CausalPolicy.load(tmp_path, device="cpu")
    weights.unlink()
    with pytest.raises(StorageError, match=r"no adapter_model\.safetensors"):
        CausalPolicy.load(tmp_path, device="cpu")
