"""Payment requests: twenty mixed features, the available actions and the hidden chances that settle each request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from braid.tasks.task import Split, stable_integer

ACTIONS = 8
"""All combinations of three binary interventions; action 0, none of them, is always available."""
INTERVENTIONS = ("retry_format", "authentication", "message_fields")
CURRENCIES = 6
FEATURES: dict[str, int] = {
    "issuer": -1,
    "currency": CURRENCIES,
    "card_type": 3,
    "channel": 3,
    "merchant_category": 8,
    "weekday": 7,
    "hour": 0,
    "day_of_month": 0,
    "log_amount": 0,
    "basket_items": 0,
    "discount": 0,
    "earlier_attempts": 0,
    "history_rate": 0,
    "history_count": 0,
    "days_since_success": 0,
    "account_age": 0,
    "device_age": 0,
    "latency": 0,
    "domestic": 2,
    "tokenised": 2,
}
"""Context features in the order of their columns with their number of levels: 0 is numeric, -1 set by the task."""
CHANCES = ("bucket", "action", "reward", "late", "lost")
"""Columns of `Requests.chance`."""

_BLOCK = 1024
"""Requests are drawn in blocks of this size, each from a generator of its own: fast, and request i never depends on
how many are asked for."""
_COLUMNS = len(FEATURES) + ACTIONS + 1 + len(CHANCES)


@dataclass(frozen=True, eq=False)
class Requests:
    """N payment requests, K actions.

    Args:
        index: [N] int64, position in the stream of their split.
        x: [N, 20] float32, columns as in `FEATURES`; categorical ones hold level numbers.
        mask: [N, K] bool, the available actions; the first always is.
        chance: [N, 5] float64 in (0, 1), columns as in `CHANCES`: what decides the served action, its reward and its
            arrival, so that policies are compared on the same luck. Not for agents.
    """

    index: NDArray[np.int64]
    x: NDArray[np.float32]
    mask: NDArray[np.bool_]
    chance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def column(self, name: str) -> NDArray[np.float64]:
        """The feature of that name, [N] float64."""
        return self.x[:, list(FEATURES).index(name)].astype(np.float64)


def draw_requests(
    split: Split,
    start: int,
    stop: int,
    seed: int,
    home_currency: NDArray[np.int64],
    issuers: range,
    available: tuple[int, int],
) -> Requests:
    """The requests start..stop - 1 of a split.

    Args:
        split: of the stream.
        start: first index, at least 0.
        stop: one past the last index, at least `start`.
        seed: of the stream.
        home_currency: [all issuers], the currency of most requests of an issuer, which makes a request domestic.
        issuers: the consecutive levels that occur; earlier ones are more frequent.
        available: fewest and most available actions, each number in between equally likely.

    Returns:
        stop - start requests.
    """
    uniforms = _uniforms(split, start, stop, seed)
    context, rest = np.split(uniforms, [len(FEATURES)], axis=1)
    chance = np.ascontiguousarray(rest[:, ACTIONS + 1 :])
    x = _features(dict(zip(FEATURES, context.T, strict=True)), home_currency, issuers)
    return Requests(np.arange(start, stop), x, _availability(rest[:, :ACTIONS], rest[:, ACTIONS], available), chance)


def _uniforms(split: Split, start: int, stop: int, seed: int) -> NDArray[np.float64]:
    first, key = start // _BLOCK, stable_integer("payments", seed, split)
    blocks = [
        np.random.default_rng((key, block)).random((_BLOCK, _COLUMNS)) for block in range(first, -(-stop // _BLOCK))
    ]
    drawn = np.concatenate([np.empty((0, _COLUMNS)), *blocks])[start - first * _BLOCK : stop - first * _BLOCK]
    return np.clip(drawn, 1e-12, 1 - 1e-12)


def _features(
    u: dict[str, NDArray[np.float64]], home_currency: NDArray[np.int64], issuers: range
) -> NDArray[np.float32]:
    popularity = 1.0 / (np.arange(len(issuers)) + 5)
    edges = np.cumsum(popularity) / popularity.sum()
    issuer = issuers.start + np.minimum(np.searchsorted(edges, u["issuer"], side="right"), len(issuers) - 1)
    home = home_currency[issuer]
    at_home = u["currency"] < 0.75
    currency = np.where(at_home, home, np.floor((u["currency"] - 0.75) / 0.25 * CURRENCIES))
    columns = {
        "issuer": issuer,
        "currency": currency,
        **{name: np.floor(u[name] * FEATURES[name]) for name in ("card_type", "channel", "merchant_category")},
        "weekday": np.floor(u["weekday"] * 7),
        "hour": np.floor(14 + 5 * ndtri(u["hour"])) % 24,
        "day_of_month": 1 + np.floor(u["day_of_month"] * 31),
        "log_amount": 3.5 + 1.1 * ndtri(u["log_amount"]),
        "basket_items": np.minimum(1 + np.floor(-1.5 * np.log1p(-u["basket_items"])), 20),
        "discount": np.where(u["discount"] < 0.3, u["discount"], 0.0),
        "earlier_attempts": np.minimum(np.floor(np.log1p(-u["earlier_attempts"]) / np.log(0.3)), 5),
        "history_rate": u["history_rate"] ** 0.15,
        "history_count": np.floor(np.exp(2 + 1.2 * ndtri(u["history_count"]))),
        "days_since_success": -7 * np.log1p(-u["days_since_success"]),
        "account_age": -2 * np.log1p(-u["account_age"]),
        "device_age": -1.5 * np.log1p(-u["device_age"]),
        "latency": np.exp(5 + 0.4 * ndtri(u["latency"])),
        "domestic": currency == home,
        "tokenised": u["tokenised"] < 0.5,
    }
    return np.stack([columns[name] for name in FEATURES], axis=1).astype(np.float32)


def _availability(
    order: NDArray[np.float64], size: NDArray[np.float64], available: tuple[int, int]
) -> NDArray[np.bool_]:
    fewest, most = available
    count = fewest + np.floor(size * (most - fewest + 1))
    order = order.copy()
    order[:, 0] = -1.0
    rank = order.argsort(axis=1).argsort(axis=1)
    return rank < count[:, None]
