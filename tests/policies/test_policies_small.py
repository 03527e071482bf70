"""Small models: their size, their seed, and tokenizers that give every text back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from braid.errors import UsageError
from braid.policies import tiny
from braid.policies.small import PRINTABLE, TAGS, Architecture, byte_tokenizer, character_tokenizer, small_config

patient = settings(deadline=None)  # the machine may be busy
CHARACTERS = character_tokenizer()
BYTES = byte_tokenizer(["the cat sat on the mat; the hat is flat"] * 3, 400)
SPECIAL = ("<pad>", "<eos>", "<unk>")
ascii_with_tags = st.lists(st.one_of(st.text(PRINTABLE), st.sampled_from(TAGS + SPECIAL))).map("".join)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


# tokenizers


@patient
@given(ascii_with_tags)
@example(" a  b ' s , . ! n't <answer>")
@example("<eos><pad><unk>")
@example("<thin<think>k></think")
def test_characters_and_tags_round_trip(text: str) -> None:
    assert decode(CHARACTERS, encode(CHARACTERS, text)) == text


@patient
@given(st.text())
@example("tab\tand é and →")
def test_unknown_characters_do_not_crash(text: str) -> None:
    tokens = encode(CHARACTERS, text)
    assert all(0 <= token < len(CHARACTERS) for token in tokens)
    decode(CHARACTERS, tokens)
    known = "".join(character for character in text if character in PRINTABLE)
    if known == text:
        assert decode(CHARACTERS, tokens) == text


def test_one_token_per_character_and_per_tag() -> None:
    tokens = encode(CHARACTERS, "ab <think>")
    assert len(tokens) == 4
    assert CHARACTERS.convert_ids_to_tokens(tokens) == ["a", "b", " ", "<think>"]
    assert len(CHARACTERS) == 3 + len(PRINTABLE) + len(TAGS)
    assert encode(CHARACTERS, "é") == [CHARACTERS.convert_tokens_to_ids("<unk>")]


@patient
@given(st.text())
@example("naïve → 🙂 \x00\r\n\t  two  spaces <eos> the cat")
@example("<pad><eos>")
def test_bytes_round_trip_any_text(text: str) -> None:
    assert decode(BYTES, encode(BYTES, text)) == text


@pytest.mark.parametrize("tokenizer", [CHARACTERS, BYTES], ids=["characters", "bytes"])
def test_text_cannot_write_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert not {0, 1} & set(encode(tokenizer, "<pad> <eos>"))


@pytest.mark.parametrize("tokenizer", [CHARACTERS, BYTES], ids=["characters", "bytes"])
def test_tokenizers_survive_storage(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    for text in ("a <think>b</think> the  cat ' s.", "<eos>", " lead and trail ", "x\ny"):
        assert encode(loaded, text) == encode(tokenizer, text)
        assert decode(loaded, encode(loaded, text)) == text


def test_an_alphabet_of_ones_own() -> None:
    tokenizer = character_tokenizer("01+=", tags=("<go>",))
    assert len(tokenizer) == 3 + 4 + 1
    assert decode(tokenizer, encode(tokenizer, "1+0=1<go>")) == "1+0=1<go>"


def test_a_byte_tokenizer_learns_words_and_is_not_too_small() -> None:
    assert len(encode(BYTES, " the the the")) < 12
    with pytest.raises(UsageError, match=r"vocabulary=100 .* at least 300"):
        byte_tokenizer(["x"], 100)


# models


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("parameters", [2e5, 3e5, 5e5, 7e5, 1e6, 2e6, 3.5e6, 5e6])
def test_sizes_are_near_those_asked_for(parameters: float, architecture: Architecture) -> None:
    policy = tiny(parameters, architecture=architecture)
    assert sum(p.numel() for p in policy.model.parameters()) == pytest.approx(parameters, rel=0.35)
    assert policy.model.config.model_type == architecture


@pytest.mark.parametrize("parameters", [9e4, 6e7, 0.0, -1.0])
def test_sizes_out_of_range_are_refused(parameters: float) -> None:
    with pytest.raises(UsageError, match=r"outside 0\.1e6 to 50e6"):
        small_config(parameters, 100)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="architecture='gpt9' is not one of qwen3, llama"):
        tiny(architecture="gpt9")  # type: ignore[arg-type]


def test_the_seed_decides_the_weights_and_nothing_else() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = tiny(1.2e5, seed=4).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    same, other = tiny(1.2e5, seed=4).model.state_dict(), tiny(1.2e5, seed=5).model.state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_context_is_kept() -> None:
    assert tiny(1.2e5, context=77).context_length == 77
