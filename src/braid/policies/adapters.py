"""Low-rank adapters through PEFT: train a few weights, keep the base model as its own reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from braid.errors import MissingExtra, UsageError
from braid.options import check_options, option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AdapterKind = Literal["none", "lora", "dora", "rslora"]


@dataclass(frozen=True)
class Adapter:
    """What is trained beside the frozen base weights.

    Args:
        kind: `lora`, `dora` (weight-decomposed) or `rslora` (scaled by the root of the rank).
        rank: of the update, at least 1.
        alpha: scale of the update, above 0; `alpha / rank` (or `alpha / sqrt(rank)` for rsLoRA) multiplies it.
        dropout: in [0, 1).
        targets: names of the modules that get an update, comma-separated, or `all-linear`.
        seed: of the first weights.

    Raises:
        UsageError: a value outside its range.
    """

    kind: AdapterKind = "lora"
    rank: int = option(16, "rank of the update", low=1)
    alpha: float = option(32.0, "scale of the update", above=0)
    dropout: float = option(0.0, "dropout before the update", low=0, below=1)
    targets: str = "all-linear"
    seed: int = option(0, "of the first weights", low=0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.kind == "none":
            raise UsageError("kind='none' is not an adapter; leave the adapter out to train all weights")

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with a fresh adapter; only the adapter's weights require gradients.

        Raises:
            MissingExtra: PEFT is not installed.
            UsageError: no module has one of the names in `targets`.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtra("peft", "lora") from error

        names = [name.strip() for name in self.targets.split(",")]
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets if self.targets == "all-linear" else names,
            use_dora=self.kind == "dora",
            use_rslora=self.kind == "rslora",
        )
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                return get_peft_model(model, config)  # type: ignore[return-value]
        except ValueError as error:
            raise UsageError(f"adapter targets {self.targets!r} do not fit this model: {error}") from error
