"""The one place where sequences of different lengths are padded, joined, cut and split."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from braid.data.records import Preferences, Rollouts, Source


def build_rollouts(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    log_probs: Sequence[Tensor] | None = None,
    group_id: Sequence[int] | Tensor | None = None,
    example_index: Sequence[int] | Tensor | None = None,
    source: Source = Source.ONLINE,
    truncated: Sequence[bool] | Tensor | None = None,
) -> Rollouts:
    """Lay prompts and responses out as right-padded rows.

    Args:
        prompts: B lists of token ids.
        responses: B lists of token ids, the end-of-sequence token included where there is one.
        pad_token_id: fills the rest of a row.
        log_probs: B tensors [length of the response], the behaviour log-probabilities; None for demonstrations.
        group_id: [B]; by default every row is a group of its own.
        example_index: [B]; by default the row number.
        source: of all rows.
        truncated: [B]; False by default.

    Returns:
        Rollouts with zero rewards and advantages and `success_rate` 0.
    """
    size = len(prompts)
    joined = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(map(len, joined), default=0)
    tokens = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in joined], dtype=torch.int64)
    tokens = tokens.view(size, width)
    column = torch.arange(width)
    start, end = (torch.tensor([*map(len, lists)]).unsqueeze(-1) for lists in (prompts, joined))
    attention = column < end
    response_mask = attention & (column >= start)
    behaviour = torch.zeros((size, width))
    if log_probs is not None and size:
        behaviour[response_mask] = torch.cat(list(log_probs))
    rows = torch.arange(size)
    return Rollouts(
        tokens=tokens,
        attention_mask=attention,
        response_mask=response_mask,
        loss_mask=response_mask.clone(),
        behaviour_log_prob=behaviour,
        reference_log_prob=torch.zeros_like(behaviour),
        token_reward=torch.zeros_like(behaviour),
        advantage=torch.zeros_like(behaviour),
        value=torch.zeros_like(behaviour),
        returns=torch.zeros_like(behaviour),
        reward=torch.zeros(size),
        success_rate=torch.zeros(size),
        group_id=rows if group_id is None else torch.as_tensor(group_id, dtype=torch.int64),
        example_index=rows.clone() if example_index is None else torch.as_tensor(example_index, dtype=torch.int64),
        source=torch.full((size,), int(source), dtype=torch.int64),
        truncated=torch.zeros(size, dtype=torch.bool) if truncated is None else torch.as_tensor(truncated).bool(),
        terms=TensorDict({}, batch_size=[size]),
        weights=TensorDict({}, batch_size=[size]),
        batch_size=[size],
    )


def response_tokens(batch: Rollouts) -> list[list[int]]:
    """The token ids of every response."""
    return [
        [token for token, inside in zip(row, mask, strict=True) if inside]
        for row, mask in zip(batch.tokens.tolist(), batch.response_mask.tolist(), strict=True)
    ]


def build_preferences(
    prompts: Sequence[Sequence[int]],
    chosen: Sequence[Sequence[int]],
    rejected: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    margin: Sequence[float] | None = None,
    weight: Sequence[float] | None = None,
) -> Preferences:
    """Lay preference pairs out as two batches of rows of the same prompts.

    Args:
        prompts: B lists of token ids.
        chosen: B lists of token ids, the preferred responses.
        rejected: B lists of token ids.
        pad_token_id: fills the rest of a row.
        margin: [B], 0 by default.
        weight: [B], 1 by default.
    """
    size = len(prompts)

    def side(responses: Sequence[Sequence[int]]) -> Rollouts:
        return build_rollouts(prompts, responses, pad_token_id=pad_token_id, source=Source.DEMONSTRATION)

    return Preferences(
        chosen=side(chosen),
        rejected=side(rejected),
        margin=torch.zeros(size) if margin is None else torch.tensor(margin, dtype=torch.float32),
        weight=torch.ones(size) if weight is None else torch.tensor(weight, dtype=torch.float32),
        batch_size=[size],
    )


def resize(batch: Rollouts, width: int, pad_token_id: int) -> Rollouts:
    """The same rows with per-token tensors of the given width, padded or cut on the right.

    Args:
        batch: rows [B, T].
        width: the new T; must not cut a token off.
        pad_token_id: fills new positions of `tokens`.
    """
    change = width - batch.tokens.shape[-1]
    if change == 0:
        return batch
    if change < 0 and bool(batch.attention_mask[:, width:].any()):
        raise ValueError(
            f"width={width} would cut tokens off; the longest row has {int(batch.attention_mask.sum(-1).max())}"
        )

    def fit(name: str, value: Tensor) -> Tensor:  # nested fields come by their last name
        if value.ndim < 2:
            return value
        if change < 0:
            return value[:, :width]
        return torch.nn.functional.pad(value, (0, change), value=pad_token_id if name == "tokens" else 0)

    return batch.named_apply(fit)  # type: ignore[attr-defined]


def trim(batch: Rollouts) -> Rollouts:
    """The same rows without columns in which every row is padding."""
    longest = int(batch.attention_mask.sum(-1).max()) if len(batch) else 0
    return resize(batch, longest, pad_token_id=0)


def concatenate(batches: Sequence[Rollouts], pad_token_id: int) -> Rollouts:
    """Join batches of different widths, rows in the order given.

    Args:
        batches: at least one; reward terms that some lack are filled with 0 there.
        pad_token_id: fills new positions.
    """
    if len(batches) == 1:
        return batches[0]
    width = max(b.tokens.shape[-1] for b in batches)
    terms = sorted({name for b in batches for name in b.terms.keys()})  # noqa: SIM118 (a TensorDict iterates over rows)
    fitted = []
    for batch in batches:
        batch = resize(batch, width, pad_token_id)
        known = {name: batch.terms.get(name, torch.zeros_like(batch.reward)) for name in terms}
        fitted.append(batch.replace(terms=TensorDict(known, batch_size=[len(batch)])))
    return torch.cat(fitted)  # type: ignore[arg-type, return-value]


def micro_batches(batch: Rollouts, token_budget: int, *, whole_groups: bool = False) -> list[Tensor]:
    """Split rows into as few pieces as a budget of padded tokens allows, of similar lengths and similar sizes.

    Args:
        batch: rows [B, T].
        token_budget: the largest number of positions (rows x longest row) of a piece; a single row or, with
            `whole_groups`, a single group may exceed it.
        whole_groups: keep the rows of one prompt together.

    Returns:
        Index tensors that together hold every row once.
    """
    lengths = batch.attention_mask.sum(-1).tolist()
    if not len(batch):
        return []
    if whole_groups:
        _, inverse = torch.unique(batch.group_id, return_inverse=True)
        units = [torch.nonzero(inverse == g).flatten().tolist() for g in range(int(inverse.max()) + 1)]
    else:
        units = [[row] for row in range(len(batch))]
    units.sort(key=lambda unit: max(lengths[row] for row in unit))  # stable: ties keep their order
    sizes = [(len(unit), max(lengths[row] for row in unit)) for unit in units]
    most = len(_ends(sizes, token_budget))
    # the least budget that makes as many pieces, so that none of them is a small rest
    enough = bisect.bisect_left(range(token_budget), True, key=lambda budget: len(_ends(sizes, budget)) <= most)
    pieces = itertools.pairwise((0, *_ends(sizes, enough)))
    return [torch.tensor([row for unit in units[a:b] for row in unit]) for a, b in pieces]


def _ends(sizes: list[tuple[int, int]], budget: int) -> list[int]:
    """Where pieces end that take one unit (rows, longest row) after the other as long as the budget allows."""
    ends: list[int] = []
    rows = 0
    for number, (more, longest) in enumerate(sizes):  # ascending in length
        rows += more
        if number and rows * longest > budget:
            ends.append(number)
            rows = more
    return [*ends, len(sizes)]


def split_groups(batch: Rollouts, parts: int, generator: torch.Generator) -> list[Tensor]:
    """Split rows into mini-batches of whole groups, in a random order of the groups.

    Args:
        batch: rows [B, T].
        parts: number of mini-batches; fewer are made if there are fewer groups.
        generator: of the shuffle.

    Returns:
        Index tensors that together hold every row once.
    """
    ids, inverse = torch.unique(batch.group_id, return_inverse=True)
    if parts <= 1 or len(ids) <= 1:
        return [torch.arange(len(batch))]
    order = torch.randperm(len(ids), generator=generator)
    return [
        torch.nonzero(torch.isin(inverse, groups)).flatten()
        for groups in torch.tensor_split(order, min(parts, len(ids)))
    ]
