"""A stream of payment requests: choose an intervention, learn later (or never) whether the payment was authorised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from braid.data.bandit_log import NEVER, BanditLog
from braid.errors import UsageError
from braid.options import check_options, option
from braid.tasks.bandit.payment_requests import (
    ACTIONS,
    CHANCES,
    CURRENCIES,
    FEATURES,
    INTERVENTIONS,
    Requests,
    draw_requests,
)
from braid.tasks.task import Split, check_split, stable_integer

_PAIRS = tuple(combinations(range(len(INTERVENTIONS)), 2))
_BITS = np.array([[action >> bit & 1 for bit in range(len(INTERVENTIONS))] for action in range(ACTIONS)], np.float64)
_TERMS = np.concatenate([_BITS, np.stack([_BITS[:, a] * _BITS[:, b] for a, b in _PAIRS], axis=1)], axis=1)
"""[K, 6]: which interventions and which pairs of them make up an action."""


@dataclass(frozen=True)
class PaymentsTask:
    """Payments with interventions whose effect depends on the issuer, the amount, the hour and more.

    The logit of success is the sum of an issuer's level, effects of the context, and the effect of the action: each
    intervention helps or harms by an issuer-specific size whose sign flips at an issuer-specific threshold of a context
    feature, and pairs of interventions interact. Issuer-specific sizes drift from generation to generation. Every
    expectation is known exactly.

    Request `i` of a split depends only on the configuration, the seed, the split and `i`; the hidden issuers depend on
    the configuration (`world_seed`). With its request come the chances that settle it, so a log depends on nothing
    else but the probabilities served. The ood split has issuers that occur nowhere else.

    Source: the setting of arXiv 2412.00569; the world is our own.
    """

    name: ClassVar[str] = "payments"

    issuers: int = option(50, "issuers of the train, validation and test splits", unit="issuers", low=1, high=10_000)
    ood_issuers: int = option(10, "further issuers, of the ood split", unit="issuers", low=1, high=10_000)
    min_actions: int = option(2, "fewest available actions of a request", unit="actions", low=1, high=ACTIONS)
    max_actions: int = option(8, "most available actions of a request", unit="actions", low=1, high=ACTIONS)
    base_rate: float = option(0.88, "mean success of action 0 in generation 0", above=0, below=1)
    effect_size: float = option(0.25, "typical effect of an intervention on the logit of success", low=0, high=10)
    drift: float = option(0.15, "share of an effect renewed per generation, as a standard deviation", low=0, high=1)
    delay: int = option(1, "generations until a reward is known", unit="generations", low=1)
    late_rate: float = option(0.0, "chance that a reward is another generation late, again and again", low=0, below=1)
    lost_rate: float = option(0.0, "share of rewards that never arrive", low=0, high=1)
    world_seed: int = option(0, "which hidden issuers there are", low=0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.min_actions > self.max_actions:
            raise UsageError(f"min_actions={self.min_actions} is greater than max_actions={self.max_actions}")

    @property
    def action_count(self) -> int:
        """K, available or not."""
        return ACTIONS

    @property
    def action_features(self) -> NDArray[np.float32]:
        """[K, 3] zeros and ones: which of the three interventions an action consists of."""
        return _BITS.astype(np.float32)

    @property
    def category_sizes(self) -> dict[str, int]:
        """Feature name -> number of levels in the order of the columns of `x`; 0 for a numeric feature."""
        return {name: self.issuers + self.ood_issuers if size < 0 else size for name, size in FEATURES.items()}

    def requests(self, split: Split, n: int, seed: int = 0, start: int = 0) -> Requests:
        """The requests `start` … `start + n - 1` of a split.

        Args:
            split: train, validation, test or ood.
            n: how many, at least 0.
            seed: of the stream.
            start: index of the first; generation g of a study with N requests each starts at g N.

        Raises:
            UsageError: an unknown split, or a negative number.
        """
        check_split(split, n)
        if start < 0:
            raise UsageError(f"start={start} is negative; the first request is 0")
        last = self.issuers + self.ood_issuers
        levels = range(self.issuers, last) if split == "ood" else range(self.issuers)
        available = (self.min_actions, self.max_actions)
        return draw_requests(split, start, start + n, seed, self._home_currency, levels, available)

    def expected_reward(self, requests: Requests, generation: int = 0) -> NDArray[np.float64]:
        """[N, K], the exact probability of success of every action; 0 where it is unavailable.

        Raises:
            UsageError: a negative generation.
        """
        logit = self._intercept + self._context_logit(requests)[:, None] + self._action_logit(requests, generation)
        return np.where(requests.mask, expit(logit), 0.0)

    def best_action(self, requests: Requests, generation: int = 0) -> NDArray[np.int64]:
        """[N], the available action with the highest expectation."""
        return self.expected_reward(requests, generation).argmax(1)

    def value(self, requests: Requests, probabilities: ArrayLike, generation: int = 0) -> float:
        """The exact expected reward of a policy on these requests.

        Args:
            requests: N requests.
            probabilities: [N, K], 0 on unavailable actions, rows summing to 1.
            generation: in which they are served.

        Raises:
            UsageError: probabilities that are none, or a negative generation.
        """
        served = _checked(probabilities, requests.mask)
        return float((served * self.expected_reward(requests, generation)).sum(1).mean())

    def reference_scores(self, requests: Requests, generation: int = 0) -> dict[str, float]:
        """Exact expected reward of the `oracle`, of the `random` (uniform) policy and of action 0 (`default`)."""
        expected = self.expected_reward(requests, generation)
        random = expected.sum(1) / requests.mask.sum(1)
        values = {"oracle": expected.max(1), "random": random, "default": expected[:, 0]}
        return {name: float(value.mean()) for name, value in values.items()}

    def serve(
        self, requests: Requests, probabilities: ArrayLike, generation: int, uniform_share: float = 0.0
    ) -> BanditLog:
        """Serves requests by a policy and logs what was done.

        Args:
            requests: N requests.
            probabilities: [N, K], the policy's; 0 on unavailable actions, rows summing to 1 (within 1e-3: the log has
                the propensities after exact normalisation, from which the actions are drawn).
            generation: in which they are served, at least 0.
            uniform_share: share of requests, in [0, 1], that are served uniformly instead, whatever their context.
                Propensities are those of the mixture.

        Returns:
            N rows in the order of the requests, with their mask: where a rule eliminates actions, serve requests whose
            mask leaves those out.

        Raises:
            UsageError: probabilities that are none, or another argument out of range.
        """
        if not 0 <= uniform_share <= 1:
            raise UsageError(f"uniform_share={uniform_share} must be at least 0 and at most 1")
        policy = _checked(probabilities, requests.mask)
        uniform = requests.mask / requests.mask.sum(1, keepdims=True)
        chance = dict(zip(CHANCES, requests.chance.T, strict=True))
        bucket = chance["bucket"] < uniform_share
        action = _draw(np.where(bucket[:, None], uniform, policy), chance["action"])
        mixture = uniform_share * uniform + (1 - uniform_share) * policy
        rows = np.arange(len(requests))
        reward = chance["reward"] < self.expected_reward(requests, generation)[rows, action]
        return BanditLog(
            t=requests.index,
            generation=np.full(len(requests), generation, np.int64),
            x=requests.x,
            action_features=np.broadcast_to(self.action_features, (len(requests), *self.action_features.shape)),
            mask=requests.mask,
            action=action,
            propensity=np.minimum(mixture[rows, action], 1.0),
            reward=reward.astype(np.float64),
            arrival=self._arrival(generation, chance["late"], chance["lost"]),
            uniform_bucket=bucket,
        )

    def _arrival(self, generation: int, late: NDArray[np.float64], lost: NDArray[np.float64]) -> NDArray[np.int64]:
        waits = np.floor(np.log(late) / np.log(self.late_rate)) if self.late_rate > 0 else np.zeros_like(late)
        return np.where(lost < self.lost_rate, NEVER, generation + self.delay + waits.astype(np.int64))

    def _context_logit(self, requests: Requests) -> NDArray[np.float64]:
        """[N], the part that no action changes, up to the intercept."""
        column = requests.column
        return (
            self._issuers["level"][column("issuer").astype(np.int64)]
            + 2.0 * (column("history_rate") - 0.87)
            - 0.35 * column("earlier_attempts")
            - 0.15 * (column("log_amount") - 3.5)
            + 0.2 * column("tokenised")
            - 0.3 * (column("card_type") == 2)
            - 0.3 * (column("channel") == 1) * (column("hour") < 6)
        )

    def _action_logit(self, requests: Requests, generation: int) -> NDArray[np.float64]:
        """[N, K], the effect of every action; 0 for the first."""
        issuer = requests.column("issuer").astype(np.int64)
        traits = {name: values[issuer] for name, values in self._issuers.items()}
        small = requests.column("log_amount") < traits["limit"]
        familiar = (requests.column("domestic") != requests.column("tokenised")) == (traits["habit"] > 0)
        open_hours = (requests.column("hour") - traits["opening"]) % 24 < 12
        signs = (small, familiar, open_hours)
        sign = np.stack([np.where(s, 1.0, -1.0) for s in signs] + [np.ones(len(requests))] * len(_PAIRS), axis=1)
        return self.effect_size * (sign * self._effects(generation)[issuer]) @ _TERMS.T

    def _effects(self, generation: int) -> NDArray[np.float64]:
        """[all issuers, 6], sizes of interventions and pairs: a stationary autoregression over the generations."""
        if generation < 0:
            raise UsageError(f"generation={generation} is negative; the first is 0")
        effects = self._normal("effects", 0, _TERMS.shape[1])
        for later in range(1, generation + 1):
            fresh = self._normal("effects", later, _TERMS.shape[1])
            effects = np.sqrt(1 - self.drift**2) * effects + self.drift * fresh
        return effects

    @cached_property
    def _issuers(self) -> dict[str, NDArray[np.float64]]:
        """Traits that do not drift, [all issuers] each."""
        level, limit, opening, habit = self._normal("traits", 0, 4).T
        return {"level": 0.4 * level, "limit": 3.5 + 0.7 * limit, "opening": np.floor(12 + 8 * opening), "habit": habit}

    @cached_property
    def _home_currency(self) -> NDArray[np.int64]:
        generator = np.random.default_rng(stable_integer("payments currency", self.world_seed))
        return generator.integers(CURRENCIES, size=self.issuers + self.ood_issuers)

    @cached_property
    def _intercept(self) -> float:
        """Solves for the base rate on requests of a stream of their own."""
        logit = self._context_logit(self.requests("train", 8192, seed=-1))
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if expit(middle + logit).mean() < self.base_rate else (low, middle)
        return (low + high) / 2

    def _normal(self, what: str, generation: int, columns: int) -> NDArray[np.float64]:
        key = stable_integer("payments", what, self.world_seed, generation)
        return np.random.default_rng(key).standard_normal((self.issuers + self.ood_issuers, columns))


def _checked(probabilities: ArrayLike, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities in double precision whose rows sum to 1."""
    given = np.asarray(probabilities, dtype=np.float64)
    if given.shape != mask.shape:
        raise UsageError(f"probabilities has shape {given.shape}; expected {mask.shape}, one per request and action")
    total = given.sum(1)
    wrong = ~(given >= 0).all(1) | ~(np.abs(total - 1) < 1e-3) | (given * ~mask).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"probabilities of request {row}, {given[row].round(4).tolist()}, must be at least 0, sum to 1 and be 0 "
            f"on unavailable actions (available: {np.flatnonzero(mask[row]).tolist()})"
        )
    return given / total[:, None]


def _draw(probabilities: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """[N], the actions at which the cumulated probabilities pass the chance."""
    passed = (np.cumsum(probabilities, axis=1) <= chance[:, None]).sum(1)
    # Cumulated probabilities may end just below 1, and below the chance: no action of probability 0 may follow.
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(1)
    return np.minimum(passed, last)
