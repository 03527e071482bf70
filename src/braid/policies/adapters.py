"""Low-rank adapters through PEFT: train a few weights, keep the base model as its own reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from braid.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AdapterKind = Literal["none", "lora", "dora", "rslora"]


@dataclass(frozen=True)
class Adapter:
    """What is trained beside the frozen base weights.

    Args:
        kind: `lora`, `dora` (weight-decomposed) or `rslora` (scaled by the root of the rank).
        rank: of the update, at least 1.
        alpha: scale of the update; `alpha / rank` (or `alpha / sqrt(rank)` for rsLoRA) multiplies it.
        dropout: in [0, 1).
        targets: names of the modules that get an update, comma-separated, or `all-linear`.
    """

    kind: AdapterKind = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = "all-linear"

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

        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets if self.targets == "all-linear" else self.targets.split(","),
            use_dora=self.kind == "dora",
            use_rslora=self.kind == "rslora",
        )
        try:
            return get_peft_model(model, config)  # type: ignore[return-value]
        except ValueError as error:
            raise UsageError(f"adapter targets {self.targets!r} do not fit this model: {error}") from error
