"""Checkpoints in Hugging Face format: where one is, reading it, and what to say if it cannot be read."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from braid.errors import MissingExtra, StorageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def address_of(source: str | Path) -> str:
    """What Transformers is asked for: the absolute path of a directory (an adapter remembers it), or a hub id.

    Raises:
        StorageError: a path at which there is no directory.
    """
    path = Path(source).expanduser()
    if str(source) and path.is_dir():
        return str(path.resolve())
    if isinstance(source, Path) or path.exists() or not _HUB_ID.fullmatch(source):
        raise StorageError(
            f"cannot load a language model from {str(source)!r}: there is no such directory; "
            "give a directory with a Hugging Face checkpoint, or a hub id such as Qwen/Qwen3-0.6B"
        )
    return source


def has_adapter_file(address: str) -> bool:
    """Whether a directory holds an adapter instead of a whole model."""
    return (Path(address) / "adapter_config.json").is_file()


def read(address: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from files, whatever these raise."""
    from transformers import AutoModelForCausalLM

    if not has_adapter_file(address):
        model = AutoModelForCausalLM.from_pretrained(address, dtype=dtype, trust_remote_code=trust_remote_code)
        return model, _read_tokenizer(address, trust_remote_code)
    try:
        from peft import AutoPeftModelForCausalLM, PeftConfig
    except ImportError as error:
        raise MissingExtra("peft", "lora") from error
    base = PeftConfig.from_pretrained(address).base_model_name_or_path
    if not base:
        raise StorageError(f"the adapter at {address!r} does not name its base: base_model_name_or_path is empty")
    try:
        address_of(base)
    except StorageError as error:
        raise StorageError(
            f"the base model of the adapter at {address!r} is missing: there is no directory {base!r}"
        ) from error
    if not any((Path(address) / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")):
        raise StorageError(f"cannot load the adapter at {address!r}: it has no adapter_model.safetensors")
    model = AutoPeftModelForCausalLM.from_pretrained(
        address, is_trainable=True, dtype=dtype, trust_remote_code=trust_remote_code
    )
    own = (Path(address) / "tokenizer_config.json").is_file()
    return model, _read_tokenizer(address if own else base, trust_remote_code)


def parameter_count(address: str, trust_remote_code: bool) -> int | None:
    """How many parameters a checkpoint has, found without reading them; None for adapters and what is not known."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if has_adapter_file(address):
        return None
    try:
        config = AutoConfig.from_pretrained(address, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:  # whoever reads the weights has more to say about it
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def _read_tokenizer(address: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(address, trust_remote_code=trust_remote_code)
    except Exception as error:
        reason = first_line(error)
        raise StorageError(
            f"cannot load the tokenizer of {address!r}; is its tokenizer.json in order? {reason}"
        ) from error


def unreadable(source: str | Path, error: Exception) -> StorageError:
    """The error for a checkpoint at which a library stumbled."""
    hint = "" if Path(source).exists() else " (if you meant a directory: there is none of this name)"
    return StorageError(f"cannot load a language model from {str(source)!r}{hint}: {first_line(error)}")


@contextlib.contextmanager
def quiet(*, progress: bool) -> Iterator[None]:
    """Without the progress bars of Transformers, unless wanted, and its notes to developers of PEFT."""
    from transformers.utils import logging

    silence = not progress and logging.is_progress_bar_enabled()
    if silence:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            yield
    finally:
        if silence:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
