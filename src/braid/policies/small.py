"""Small language models of a standard architecture, with a tokenizer of their own, in Hugging Face format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from braid.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

    from braid.policies.causal import CausalPolicy

Architecture = Literal["qwen3", "llama"]

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<tool>", "</tool>", "<obs>", "</obs>")
PRINTABLE = "\n" + "".join(chr(code) for code in range(32, 127))
HEAD_SIZE = 32


def character_tokenizer(alphabet: str = PRINTABLE, tags: Sequence[str] = TAGS) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character and one per tag.

    Args:
        alphabet: its characters; anything else becomes the unknown token.
        tags: strings that are one token each.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    vocabulary = {token: index for index, token in enumerate([PAD, EOS, UNKNOWN, *dict.fromkeys(alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return _wrap(tokenizer)


def byte_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts given; it can write any text.

    Args:
        texts: what it is trained on.
        vocabulary: number of tokens, at least 300.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < 300:
        raise UsageError(f"vocabulary={vocabulary} is too small for a byte-level tokenizer; use at least 300")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def _wrap(tokenizer: object) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<eos>" in a text is five characters, not the end
    )


def small_config(
    parameters: float, vocabulary: int, *, architecture: Architecture = "qwen3", context: int = 2048
) -> PreTrainedConfig:
    """The configuration of a decoder with about the number of parameters asked for.

    Args:
        parameters: 0.1e6 to 50e6, tied embeddings counted once.
        vocabulary: number of tokens.
        architecture: `qwen3` or `llama`.
        context: the longest sequence, tokens.
    """
    from transformers import LlamaConfig, Qwen3Config

    if not 1e5 <= parameters <= 5e7:
        raise UsageError(f"parameters={parameters:g} is outside 0.1e6 to 50e6")
    classes = {"qwen3": Qwen3Config, "llama": LlamaConfig}
    if architecture not in classes:
        raise UsageError(f"architecture={architecture!r} is not one of {', '.join(classes)}")

    def count(hidden: int, layers: int) -> float:
        return vocabulary * hidden + layers * (4 * hidden**2 + 3 * hidden * 3 * hidden)

    shapes = [
        (HEAD_SIZE * heads, layers)
        for heads in range(2, 21)
        for layers in range(2, 13)
        if 0.75 * heads <= layers <= 2 * heads
    ]
    hidden, layers = min(shapes, key=lambda shape: abs(count(*shape) - parameters))
    return classes[architecture](
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        num_key_value_heads=hidden // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        tie_word_embeddings=True,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )


def tiny(
    parameters: float = 5e5,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    architecture: Architecture = "qwen3",
    context: int = 2048,
    seed: int = 0,
) -> CausalPolicy:
    """A small policy with random weights; `save` writes it in Hugging Face format.

    Args:
        parameters: about how many, 0.1e6 to 50e6.
        tokenizer: `character_tokenizer()` by default.
        architecture: `qwen3` or `llama`.
        context: the longest sequence, tokens.
        seed: of the weights.
    """
    from transformers import AutoModelForCausalLM

    from braid.policies.causal import CausalPolicy

    tokenizer = tokenizer or character_tokenizer()
    config = small_config(parameters, len(tokenizer), architecture=architecture, context=context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return CausalPolicy(model, tokenizer)
