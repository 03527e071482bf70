"""The benchmarks of GPUs and of memory on small sizes, on the CPU: they run, and count what they say they count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark as a script would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def by_name(name: str) -> ModuleType:
        return __import__(name)

    return by_name


# the model's shape


def test_the_shape_is_that_of_qwen(load: Any) -> None:
    shape = load("qwen_shaped").QWEN
    with torch.device("meta"):
        model = shape.make_model(torch.bfloat16, "meta")
    assert sum(p.numel() for p in model.parameters()) == 494_032_768  # as Qwen/Qwen2.5-0.5B has
    linear = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"]
    assert shape.layer_weights == sum(m.weight.numel() for m in linear) == 357_826_560
    assert shape.key_value_bytes(2) == 24 * 2 * 2 * 64 * 2


def test_flops_of_an_update_by_hand(load: Any) -> None:
    shape = load("qwen_shaped").Shape(hidden=8, layers=1, heads=2, key_value_heads=1, intermediate=16, vocabulary=10)
    weights = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16
    attention = 4 * 8 * (1 + 2 + 3 * (3 + 4))
    assert shape.update_flops(2, 2, 3) == 3 * (2 * weights * (2 + 3 * 2) + attention + 2 * 8 * 10 * 3 * 2)


def test_given_rollouts_are_an_update_without_decoding(load: Any) -> None:
    shared = load("qwen_shaped")
    policy = shared.make_policy(shared.SMALL, torch.float32, "cpu")
    method = shared.GivenRollouts(group_size=4, prompt_tokens=5, response_tokens=7)
    settings = shared.Settings(device="cpu", prompts_per_step=2, micro_batch_tokens=24)
    learner = shared.make_learner(policy, method, settings, prompt_tokens=5, max_new_tokens=7)
    before = policy.model.model.layers[0].mlp.up_proj.weight.clone()
    metrics = learner.step(0.0)
    assert metrics["step/rows"] == 8
    assert metrics["completions/mean_length"] == 7
    assert metrics["reward/mean"] == 0.5
    assert "time/decode" not in metrics
    assert not torch.equal(policy.model.model.layers[0].mlp.up_proj.weight, before)


# gpu.py


def test_the_gpu_benchmark_on_the_cpu(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--small", "--repeats", "1", "--weights", "float32"]
    sections = ["--only", "prefill", "decode", "sample", "update"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, *sections, "--output", str(tmp_path / "new" / "gpu.json")])
    monkeypatch.setenv("BRAID_CUDA_GRAPHS", "")
    load("gpu").main()
    result = json.loads((tmp_path / "new" / "gpu.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    assert set(rows) == {
        "prefill 4 x 16",
        *(f"decoder {kind}, batch {batch}" for kind in ("eager", "static") for batch in (4, 8)),
        *(f"braid sample, {how}, batch {batch}" for how in ("eager", "as it comes") for batch in (4, 8)),
        *(f"transformers generate, batch {batch}" for batch in (4, 8)),
        "update 8 x 16",
    }
    assert all(row["tokens_per_second"] > 0 and len(row["seconds"]) == 1 for row in rows.values())
    row = rows["decoder static, batch 8"]
    weights = 2 * 512 * 64 + 2 * (2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 2 * (64 + 2 * 32 + 2 * 64) + 64)
    cache = 8 * sum(range(17, 37)) * (2 * 2 * 2 * 2 * 16)
    floor = (20 * weights + cache) / result["peaks"]["bytes_per_second"]
    assert row["share_of_floor"] == pytest.approx(floor / row["seconds"][0])
    assert result["static_decoding"] == {"float32": True}
    assert result["machine"]["packages"]["torch"] == torch.__version__
    assert "decoder static, batch 8" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        load("gpu").main()
    assert "try --device cpu --small" in capsys.readouterr().err


# memory.py


def test_growth_measures_an_update(load: Any) -> None:
    shape = {"hidden": 64, "layers": 2, "heads": 4, "intermediate": 128, "vocabulary": 256}
    found = load("memory").measure_growth({"shape": shape, "prompts": 2, "tokens": 16, "micro_batch_tokens": 64})
    assert 0 < found["before_gib"] <= found["peak_gib"] < 64
    assert found["seconds"] > 0


@pytest.mark.parametrize("variant", ["bfloat16", "lora, float32 base"])
def test_step_measures_the_phases_of_grpo(load: Any, tmp_path: Path, variant: str) -> None:
    memory = load("memory")
    memory.write_checkpoint({"folder": str(tmp_path), "small": True})
    found = memory.measure_step({"checkpoint": str(tmp_path), "settings": memory.VARIANTS[variant]})
    assert [mark["phase"] for mark in found["marks"]] == ["import", "load", "step 1", "step 2"]
    assert {"prefill", "decode", "update"} <= set(found["marks"][-1]["phases"])
    peaks = [mark["peak_gib"] for mark in found["marks"]]
    assert peaks == sorted(peaks)
    assert all("lora" in name for name in found["changed"]) == variant.startswith("lora")
    assert any(change["share"] > 0.5 for change in found["changed"].values())


def test_a_measurement_that_fails_is_reported(load: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert load("memory").in_own_process("step", {}) == {"error": "ended with code 1"}
    assert "KeyError" in capfd.readouterr().err


def test_an_order_is_measured_in_a_process_of_its_own(load: Any, tmp_path: Path) -> None:
    assert load("memory").in_own_process("write", {"folder": str(tmp_path), "small": True}) == {}
    assert (tmp_path / "model.safetensors").is_file()
