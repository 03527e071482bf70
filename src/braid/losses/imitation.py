"""Likelihood losses: learning from tokens that somebody, or the model itself, has written. All are per token."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from braid.errors import UsageError, unknown_name
from braid.losses.aggregation import masked_sum

LikelihoodWeight = Literal["one", "probability", "uncertainty"]
PromptWeight = Literal["one", "failure", "odds"]
RatioLevel = Literal["token", "sequence"]


def negative_log_likelihood(log_prob: Tensor) -> Tensor:
    """The negative log-likelihood of every target token.

    Args:
        log_prob: [B, T], nats.

    Returns:
        [B, T].

    Source: maximum likelihood.
    """
    return -log_prob


def likelihood_weight(log_prob: Tensor, kind: LikelihoodWeight) -> Tensor:
    """A weight for every target token from the probability p that the model gives it.

    Args:
        log_prob: [B, T], nats.
        kind: ``one`` is 1 (SFT); ``probability`` is p (DFT, CHORD's IS variant); ``uncertainty`` is p (1 - p)
            (CHORD-phi).

    Returns:
        [B, T], in [0, 1], detached.

    Raises:
        UsageError: unknown kind.

    Source: DFT, arXiv 2508.05629; CHORD, arXiv 2508.11408.
    """
    match kind:
        case "one":
            return torch.ones_like(log_prob)
        case "probability":
            return _probability(log_prob.detach())
        case "uncertainty":
            probability = _probability(log_prob.detach())
            return probability * (1 - probability)
        case _:
            raise unknown_name("likelihood weight", kind, get_args(LikelihoodWeight))


def weighted_likelihood(log_prob: Tensor, kind: LikelihoodWeight = "one", cutoff_prob: float = 1.0) -> Tensor:
    """The negative log-likelihood times ``likelihood_weight``, flat above a probability.

    Args:
        log_prob: [B, T], nats.
        kind: see ``likelihood_weight``.
        cutoff_prob: c in (0, 1]; log p is clamped from above at log c, so that tokens with p > c have no gradient.

    Returns:
        [B, T].

    Raises:
        UsageError: unknown kind, or a cutoff outside (0, 1].

    Source: CHORD, arXiv 2508.11408; Trinity-RFT ``chord_policy_loss``.
    """
    if not 0 < cutoff_prob <= 1:
        raise UsageError(f"cutoff_prob={cutoff_prob} must lie in (0, 1]; 1 switches the cutoff off")
    weight = likelihood_weight(log_prob, kind)
    return -weight * (log_prob if cutoff_prob == 1 else log_prob.clamp(max=math.log(cutoff_prob)))


def unlikelihood(log_prob: Tensor, floor: float = 1e-5) -> Tensor:
    """The loss that pushes a token's probability down, -log(1 - p).

    Args:
        log_prob: [B, T], nats.
        floor: 1 - p is clamped from below at this (no gradient beyond); in (0, 1).

    Returns:
        [B, T], in [0, -log floor].

    Raises:
        UsageError: a floor outside (0, 1).

    Source: arXiv 1908.04319.
    """
    if not 0 < floor < 1:
        raise UsageError(f"floor={floor} must lie in (0, 1)")
    return -(-torch.expm1(log_prob.clamp(max=0))).clamp(min=floor).log()


def negative_aware_likelihood(
    log_prob: Tensor,
    behaviour_log_prob: Tensor,
    correct: Tensor,
    success_rate: Tensor,
    floor: float = 1.0,
    positive_floor: float = 0.0,
    negative_weight: float = 1.0,
    prompt_weight: PromptWeight = "failure",
    rate_limit: tuple[float, float] = (0.02, 0.98),
    level: RatioLevel = "token",
    mask: Tensor | None = None,
) -> Tensor:
    """Likelihood of correct answers under the policy, and of wrong ones under the negative policy it implies.

    With rho the importance ratio and q the prompt's success rate, correct answers cost -log rho and wrong ones
    -log((1 - q rho) / (1 - q)). The argument of either log is clamped from below in value only, not in gradient.

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy that sampled; detached.
        correct: [B], bool or 0/1.
        success_rate: [B], share of correct answers over the prompt's whole rollout group.
        floor: lower clamp of the negative policy's ratio; above 0.
        positive_floor: lower clamp of rho for correct answers; at least 0, 0 is inactive.
        negative_weight: factor of wrong answers; 0 is rejection fine-tuning.
        prompt_weight: factor of the prompt: ``one`` 1, ``failure`` 1 - q (Dr. GRPO's advantages when on-policy),
            ``odds`` sqrt((1 - q) / q) (GRPO's, with population standard deviation).
        rate_limit: q is clamped to this range, within (0, 1).
        level: ``token`` uses each token's ratio, ``sequence`` the product over the response.
        mask: [B, T], bool or 0/1; needed at sequence level.

    Returns:
        [B, T] at token level, [B] at sequence level.

    Raises:
        UsageError: an unknown name, a value out of range, or a missing mask.

    Source: NFT, arXiv 2505.18116; NVlabs/NFT ``dp_actor.py``.
    """
    if not floor > 0 or not positive_floor >= 0:
        raise UsageError(f"floor={floor} must be above 0 and positive_floor={positive_floor} at least 0")
    if not 0 < rate_limit[0] <= rate_limit[1] < 1:
        raise UsageError(f"rate_limit={rate_limit} must be an increasing pair inside (0, 1)")
    log_ratio = _nft_log_ratio(log_prob, behaviour_log_prob, level, mask)
    rate = success_rate.detach().to(log_ratio.dtype).clamp(*rate_limit)
    is_correct, weight = correct != 0, _prompt_weight(rate, prompt_weight)
    if level == "token":
        is_correct, rate, weight = is_correct.unsqueeze(-1), rate.unsqueeze(-1), weight.unsqueeze(-1)
    positive_log = log_ratio.detach().clamp(min=math.log(positive_floor) if positive_floor > 0 else None, max=10.0)
    positive = -_with_gradient_of(positive_log, (log_ratio - positive_log).exp())
    implied = (1 - rate * log_ratio.exp()) / (1 - rate)
    clamped = implied.detach().clamp(min=floor)
    negative = -_with_gradient_of(clamped.log(), implied / clamped)
    return weight * torch.where(is_correct, positive, negative_weight * negative)


def one_token_rollout(log_softmax: Tensor, target: Tensor, samples: Tensor, wrong_reward: float) -> Tensor:
    """REINFORCE on tokens sampled at every position of a demonstration: reward 1 for the target, less for others.

    Args:
        log_softmax: [..., V], log-probabilities at temperature 1.
        target: [...], the demonstrated tokens.
        samples: [..., K], tokens drawn from the model with replacement (see ``sample_one_token``); repeats count.
        wrong_reward: beta, reward of a token other than the target; below 1 (1 makes the reward constant).

    Returns:
        [...], mean over the K samples of -reward log pi.

    Source: OTR, arXiv 2509.26313.
    """
    right = samples == target.unsqueeze(-1)
    reward = torch.where(right, 1.0, wrong_reward).to(log_softmax.dtype)
    return -(reward * log_softmax.gather(-1, samples)).mean(dim=-1)


def one_token_rollout_exact(logits: Tensor, target: Tensor, temperature: float, wrong_reward: float) -> Tensor:
    """The expectation of ``one_token_rollout`` over its samples, in closed form.

    At temperature 1 its gradient is (1 - wrong_reward) times that of ``weighted_likelihood`` with ``probability``.

    Args:
        logits: [..., V], at temperature 1.
        target: [...], the demonstrated tokens; negative entries (ignored labels) are read as token 0.
        temperature: of the detached rollout distribution; above 0, at least 1 in the paper.
        wrong_reward: beta, reward of a token other than the target.

    Returns:
        [...].

    Raises:
        UsageError: a temperature that is not positive.

    Source: OTR, arXiv 2509.26313, the loss with its sampling summed out.
    """
    _check_temperature(temperature)
    log_softmax = torch.log_softmax(logits, dim=-1)
    rollout = torch.softmax(logits.detach() / temperature, dim=-1)
    # An impossible token has weight 0 and log-probability -inf; their product is to be 0.
    expected = rollout * log_softmax.clamp(min=torch.finfo(log_softmax.dtype).min)
    on_target = expected.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -((1 - wrong_reward) * on_target + wrong_reward * expected.sum(dim=-1))


def sample_one_token(
    logits: Tensor, count: int, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """Tokens drawn independently, with replacement, at every position.

    Args:
        logits: [..., V]; detached, and taken to float32, since a half-precision softmax need not sum to 1.
        count: K, draws per position, at least 1.
        temperature: of the sampling distribution; above 0.
        generator: source of randomness on the device of ``logits``.

    Returns:
        [..., K], int64.

    Raises:
        UsageError: a count or temperature out of range.

    Source: OTR, arXiv 2509.26313.
    """
    _check_temperature(temperature)
    if count < 1:
        raise UsageError(f"count={count} samples per position; use at least 1")
    probability = torch.softmax(logits.detach().float() / temperature, dim=-1)
    drawn = torch.multinomial(probability.flatten(end_dim=-2), count, replacement=True, generator=generator)
    return drawn.reshape(*logits.shape[:-1], count)


def luffy_shaping(log_prob: Tensor, advantage: Tensor, gamma: float = 0.1) -> Tensor:
    """The surrogate of a demonstration inside an RL group, -A p / (p + gamma), which favours unlikely tokens.

    Args:
        log_prob: [B, T], current policy, nats.
        advantage: [B] or [B, T], over the joint group of demonstration and rollouts; detached.
        gamma: above 0.

    Returns:
        [B, T].

    Raises:
        UsageError: a gamma that is not positive.

    Source: LUFFY, arXiv 2504.14945.
    """
    if not gamma > 0:
        raise UsageError(f"gamma={gamma} must be above 0")
    advantage = advantage.detach()
    if advantage.dim() == 1 and log_prob.dim() == 2:
        advantage = advantage.unsqueeze(-1)
    probability = _probability(log_prob)
    return -advantage * probability / (probability + gamma)


def srft_weights(entropy: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """SRFT's entropy-aware weights of demonstrations and of rollouts.

    Args:
        entropy: [B], mean token entropy of each response, nats; detached.
        correct: [B], bool or 0/1.

    Returns:
        Two tensors [B]: the factor of a demonstration's negative log-likelihood, 0.5 exp(-H), and the advantage of a
        rollout's tokens, 0.1 exp(H) if correct and -1 if not.

    Source: SRFT, arXiv 2506.19767, as implemented in TsinghuaC3I/Unify-Post-Training.
    """
    entropy = entropy.detach()
    return 0.5 * (-entropy).exp(), torch.where(correct != 0, 0.1 * entropy.exp(), -1.0)


def _nft_log_ratio(log_prob: Tensor, behaviour_log_prob: Tensor, level: RatioLevel, mask: Tensor | None) -> Tensor:
    difference = log_prob - behaviour_log_prob.detach()
    if level == "sequence":
        if mask is None:
            raise UsageError("level='sequence' sums log-ratios over the response; give mask")
        difference = masked_sum(difference, mask, dim=-1)
    elif level != "token":
        raise unknown_name("level", level, get_args(RatioLevel))
    return difference.clamp(max=10.0)


def _prompt_weight(rate: Tensor, kind: PromptWeight) -> Tensor:
    match kind:
        case "one":
            return torch.ones_like(rate)
        case "failure":
            return 1 - rate
        case "odds":
            return ((1 - rate) / rate).sqrt()
        case _:
            raise unknown_name("prompt weight", kind, get_args(PromptWeight))


def _with_gradient_of(forward: Tensor, backward: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another."""
    return forward.detach() + (backward - backward.detach())


def _probability(log_prob: Tensor) -> Tensor:
    # Padding may hold positive numbers, whose exponential could overflow and turn masked gradients into nan.
    return log_prob.clamp(max=0).exp()


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise UsageError(f"temperature={temperature} must be above 0")
