"""SFT, DFT, OTR and NFT: likelihood methods through weights and update."""

import math

import pytest
import torch

from braid.losses.imitation import one_token_rollout
from braid.methods.rlvr.dft import DFT
from braid.methods.rlvr.nft import NFT
from braid.methods.rlvr.otr import OTR
from braid.methods.rlvr.sft import SFT

VOCABULARY = 5


@pytest.mark.parametrize(
    ("options", "probability", "slope"),
    [
        ({}, 0.3, -1.0),
        ({"token_weight": "probability"}, 0.3, -0.3),
        ({"token_weight": "uncertainty"}, 0.3, -0.21),
        ({"cutoff_prob": 0.8}, 0.9, 0.0),
    ],
)
def test_sft_weights_of_a_token(options, probability, slope, rows, scores, gradient, context):
    batch = SFT(**options).credit(rows([1, 3], [1, 1], demonstrated=True), context())
    found = gradient(SFT(**options), batch, scores(batch, math.log(probability)))
    torch.testing.assert_close(found, slope / 4 * batch.response_mask[:, 2:].float())


def test_dft_is_sft_weighted_by_probability():
    assert DFT().token_weight == "probability"


@pytest.fixture
def logits(rows, context):
    """Demonstrations of 2 and 4 tokens with logits of a random policy over five tokens."""
    batch = OTR().credit(rows([2, 4], [1, 1], demonstrated=True), context())
    values = torch.randn(*batch.tokens.shape, VOCABULARY, generator=torch.Generator().manual_seed(0))
    return batch, values.requires_grad_()


def told(scores, batch, values):
    stub = scores(batch)
    stub.logits = values
    stub.log_prob = values.log_softmax(-1).gather(-1, batch.tokens.clamp(max=VOCABULARY - 1).unsqueeze(-1)).squeeze(-1)
    stub.log_prob = stub.log_prob * batch.response_mask
    return stub


@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "token-mean"])
@pytest.mark.parametrize("wrong_reward", [-0.1, 0.0, -1.0])
def test_exact_otr_at_temperature_one_is_scaled_dft(aggregation, wrong_reward, logits, scores, loss, context):
    batch, values = logits
    otr = OTR(exact=True, draw_temperature=1.0, wrong_reward=wrong_reward, aggregation=aggregation)
    (found,) = torch.autograd.grad(loss(otr, batch, told(scores, batch, values), context()).value, values)
    dft = DFT(aggregation=aggregation)
    (expected,) = torch.autograd.grad(loss(dft, batch, told(scores, batch, values), context()).value, values)
    torch.testing.assert_close(found, (1 - wrong_reward) * expected, rtol=1e-5, atol=1e-6)


def test_exact_otr_gradient_on_the_logits(logits, scores, loss, context):
    """-[(1 - b) p'(y) (e_y - p) + b (p' - p)] times the weight of the position."""
    batch, values = logits
    kappa, b = 1.7, -0.3
    method = OTR(exact=True, draw_temperature=kappa, wrong_reward=b)
    (found,) = torch.autograd.grad(loss(method, batch, told(scores, batch, values), context()).value, values)
    p, flat = values.detach().softmax(-1), (values.detach() / kappa).softmax(-1)
    target = torch.nn.functional.one_hot(batch.tokens.clamp(max=VOCABULARY - 1), VOCABULARY)
    on_target = (flat * target).sum(-1, keepdim=True)
    slope = -((1 - b) * on_target * (target - p) + b * (flat - p))
    weight = method.weights(batch, context())["policy"].unsqueeze(-1)
    torch.testing.assert_close(found, slope * weight, rtol=1e-5, atol=1e-6)


def test_sampled_otr_is_the_sum_over_its_draws(logits, scores, loss, context):
    batch, values = logits
    method = OTR(draws=3)
    torch.manual_seed(4)
    found = loss(method, batch, told(scores, batch, values), context())
    torch.manual_seed(4)
    mask = batch.loss_mask
    drawn = torch.multinomial((values.detach()[mask] / 1.3).softmax(-1), 3, replacement=True)
    expected = one_token_rollout(values[mask].log_softmax(-1), batch.tokens[mask], drawn, -0.1)
    weight = method.weights(batch, context())["policy"][mask]
    assert found.value.item() == pytest.approx((weight * expected).sum().item())
    missed = (drawn != batch.tokens[mask].unsqueeze(-1)).all(-1)
    assert found.metrics["otr/no_hit_fraction"].item() == pytest.approx((weight * missed).sum().item())


def test_sampled_otr_approaches_the_exact_form(logits, scores, loss, context):
    batch, values = logits
    torch.manual_seed(0)
    found = loss(OTR(draws=40_000), batch, told(scores, batch, values), context()).value.item()
    exact = loss(OTR(exact=True), batch, told(scores, batch, values), context()).value.item()
    assert found == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("prompt_weight", "right", "wrong"),
    [("failure", -0.75, 0.25), ("odds", -math.sqrt(3), 1 / math.sqrt(3)), ("one", -1.0, 1 / 3)],
)
def test_nft_on_policy_has_the_advantages_of_its_twin(prompt_weight, right, wrong, rows, scores, gradient):
    """q = 1/4; token sums over the constant 1000."""
    batch = rows([1, 2, 1, 1], [1, 0, 0, 0], success_rate=[0.25] * 4)
    found = gradient(NFT(prompt_weight=prompt_weight), batch, scores(batch))
    expected = torch.tensor([[right, 0], [wrong, wrong], [wrong, 0], [wrong, 0]]) / 1000
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_nft_without_negatives_is_rejection_fine_tuning(rows, scores, gradient):
    batch = rows([1, 2], [1, 0], success_rate=[0.5, 0.5])
    found = gradient(NFT(negative_weight=0.0, prompt_weight="one"), batch, scores(batch, -0.3))
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0], [0, 0]]) / 1000)


@pytest.mark.parametrize(("ratio", "floor", "slope"), [(2.0, 1.0, 2.0), (0.5, 1.0, 1 / 3), (1.2, 0.5, 1.5)])
def test_nft_off_policy_gradient_of_wrong_tokens(ratio, floor, slope, rows, scores, gradient):
    batch = rows([1], [0], success_rate=[0.5])
    method = NFT(negative_floor=floor, prompt_weight="one")
    found = gradient(method, batch, scores(batch, math.log(ratio) - 1.0))
    assert found.item() == pytest.approx(slope / 1000)


@pytest.mark.parametrize("likelihood", ["token", "sequence"])
@pytest.mark.parametrize("prompt_weight", ["one", "failure", "odds"])
def test_nft_twice_the_batch_has_twice_the_loss(likelihood, prompt_weight, rows, joined, scores, loss, context):
    method = NFT(likelihood=likelihood, prompt_weight=prompt_weight)
    batch = rows([1, 2, 3, 1], [1, 0, 0, 1], success_rate=[0.5] * 4)
    double = joined(batch, batch)
    once = loss(method, batch, scores(batch, -0.9), context()).value.item()
    assert loss(method, double, scores(double, -0.9), context()).value.item() == pytest.approx(2 * once)


def test_nft_at_sequence_level_has_one_loss_per_response(rows, scores, gradient):
    """Ratio 2 from two tokens, q = 1/2, floor 1: slope 2 on the sum of the log-ratios, so on every token."""
    batch = rows([2], [0], success_rate=[0.5])
    found = gradient(NFT(likelihood="sequence", prompt_weight="one"), batch, scores(batch, math.log(2) / 2 - 1.0))
    assert found.flatten().tolist() == pytest.approx([2 / 1000] * 2)


def test_nft_at_sequence_level_takes_a_kl_too(rows, scores, gradient):
    """k3 at log-probability -1 and reference -1.5, summed over tokens by the constant."""
    batch = rows([2, 1], [1, 1], success_rate=[0.5, 0.5])
    batch = batch.replace(reference_log_prob=-1.5 * batch.response_mask)
    found = gradient(NFT(likelihood="sequence", prompt_weight="one", beta=1.0), batch, scores(batch))
    slope = (-1.0 + 1 - math.exp(-0.5)) / 1000
    torch.testing.assert_close(found, torch.tensor([[slope, slope], [slope, 0]]))


def test_nft_keeps_groups_with_both_outcomes(rows, context):
    batch = rows([1] * 6, [1, 0, 1, 1, 0, 0], group=[0, 0, 1, 1, 2, 2])
    assert NFT().select(batch, context()).group_id.tolist() == [0, 0]
