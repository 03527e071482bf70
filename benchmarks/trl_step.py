"""TRL's own step of GRPO, to be timed beside Braid's."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from qwen_shaped import alternating_reward, make_rows, make_tokenizer

from braid.policies.causal import CausalPolicy


def trl_steps(
    policy: CausalPolicy,
    *,
    prompts: int,
    group: int,
    prompt_tokens: int,
    response_tokens: int,
    steps: int,
    now: Callable[[], float],
) -> list[float]:
    """When each of TRL's steps ended. Options are TRL's defaults but for what must be as in Braid.

    Args:
        policy: whose model is trained.
        prompts: of a step.
        group: responses per prompt.
        prompt_tokens: of every prompt.
        response_tokens: the longest response.
        steps: to take.
        now: seconds.

    Raises:
        ImportError: TRL is not installed.
    """
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    ends: list[float] = []

    class Ends(TrainerCallback):
        def on_step_end(self, *arguments: Any, **others: Any) -> None:
            ends.append(now())

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arguments = trl.GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=prompts * group,
            gradient_accumulation_steps=1,
            num_generations=group,
            max_completion_length=response_tokens,
            max_steps=steps,
            learning_rate=1e-6,
            gradient_checkpointing=False,
            beta=0.0,
            top_k=0,
            use_cpu=policy.device.type == "cpu",
            bf16=policy.autocast,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = trl.GRPOTrainer(
            model=policy.model,
            reward_funcs=alternating_reward,
            args=arguments,
            train_dataset=Dataset.from_list(make_rows(256, prompt_tokens)),
            processing_class=make_tokenizer(),
            callbacks=[Ends()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return ends
