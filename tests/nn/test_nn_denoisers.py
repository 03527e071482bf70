"""Denoisers of action chunks."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.nn.denoisers import MLPDenoiser, TransformerDenoiser, drop_goal
from braid.nn.embeddings import sinusoidal, thermometer
from braid.nn.unet import UNetDenoiser

H, A, HISTORY, S, G, B = 8, 2, 3, 4, 2, 5


def seed(number=0):
    return torch.Generator().manual_seed(number)


def draw(number, *shape):
    return torch.randn(*shape, generator=seed(number))


def make(kind, goals=G, number=0):
    generator = seed(number)
    quiet = {"width": 16, "layers": 2, "heads": 2}
    match kind:
        case "mlp":
            net = MLPDenoiser(H, A, HISTORY, S, (32, 32), generator=generator, goals=goals)
        case "transformer":
            net = TransformerDenoiser(H, A, HISTORY, S, generator=generator, goals=goals, **quiet)
        case "interleaved":
            net = TransformerDenoiser(
                H, A, H, S, generator=generator, goals=goals, interleaved=True, level_scale=None, **quiet
            )
        case "unet":
            net = UNetDenoiser(H, A, HISTORY, S, (8, 16), generator=generator, goals=goals, level_width=16)
    return net.eval()


KINDS = ["mlp", "transformer", "interleaved", "unet"]


def inputs(kind, goals=G, batch=B):
    history = H if kind == "interleaved" else HISTORY
    goal = draw(4, batch, goals, S) if goals else None
    return draw(1, batch, H, A), torch.linspace(0.1, 20, batch), draw(3, batch, history, S), goal


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_matters_and_rows_do_not_mix(kind):
    net, args = make(kind), inputs(kind)
    before = net(*args)
    assert before.shape == (B, H, A)
    for index in range(4):
        changed = [each.clone() for each in args]
        changed[index][0] += 1.0
        after = net(*changed)
        assert (after[0] - before[0]).abs().max() > 1e-6
        torch.testing.assert_close(after[1:], before[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_used(kind):
    """Every tensor, and every input that a tensor reads, which shows a skipped connection that was left out."""
    net = make(kind)
    net(*inputs(kind)).square().sum().backward()
    for name, parameter in net.named_parameters():
        gradient = parameter.grad.abs()
        inputs_read = gradient.transpose(0, 1).flatten(1).sum(1) if gradient.dim() > 1 else gradient.sum()
        assert (inputs_read > 0).all(), name


def test_positions_of_actions():
    """s_t and a_t of an interleaved window share a position after the goals; a chunk's come after the history's."""
    for kind, first in (("interleaved", G), ("transformer", G + HISTORY)):
        net, args = make(kind), inputs(kind)
        net.transformer = torch.nn.Identity()
        expected = net.head(net.action(args[0]) + net.position.weight[first : first + H])
        torch.testing.assert_close(net(*args), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_depend_on_the_generator_alone_and_survive_saving(kind):
    torch.manual_seed(1)
    first = make(kind)
    torch.manual_seed(2)
    second, other = make(kind), make(kind, number=5)
    args = inputs(kind)
    assert torch.equal(first(*args), second(*args))
    assert not torch.equal(first(*args), other(*args))
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(*args), other(*args))


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_fit_one_chunk_for_each_level(kind):
    net, args = make(kind), inputs(kind, batch=3)
    target = draw(9, 3, H, A)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        loss = (net(*args) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * target.var().item()


@pytest.mark.parametrize("step", [0, 3, H - 1])
def test_an_interleaved_action_knows_nothing_after_it(step):
    net = make("interleaved")
    noisy, level, observation, goal = inputs("interleaved")
    before = net(noisy, level, observation, goal)
    later_noisy, later_observation = noisy.clone(), observation.clone()
    later_noisy[:, step + 1 :] += 5.0
    later_observation[:, step + 1 :] += 5.0
    after = net(later_noisy, level, later_observation, goal)
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1])
    for changed in (noisy, observation):  # but it knows its own step
        changed[:, step] += 5.0
        assert (net(noisy, level, observation, goal)[:, step] - before[:, step]).abs().max() > 1e-6
        changed[:, step] -= 5.0


def test_a_shorter_interleaved_window_is_the_start_of_a_longer_one():
    net = make("interleaved")
    noisy, level, observation, goal = inputs("interleaved")
    torch.testing.assert_close(
        net(noisy[:, :3], level, observation[:, :3], goal), net(noisy, level, observation, goal)[:, :3]
    )


def test_a_chunk_is_causal_but_sees_the_whole_history():
    net = make("transformer")
    noisy, level, observation, goal = inputs("transformer")
    before = net(noisy, level, observation, goal)
    later = noisy.clone()
    later[:, 4:] += 5.0
    torch.testing.assert_close(net(later, level, observation, goal)[:, :4], before[:, :4])
    observation[:, -1] += 5.0
    assert (net(noisy, level, observation, goal)[:, 0] - before[:, 0]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_goals_are_given_exactly_where_the_network_was_made_for_them(kind):
    noisy, level, observation, goal = inputs(kind)
    assert make(kind, goals=0)(noisy, level, observation).shape == (B, H, A)
    for net, given in ((make(kind, goals=0), goal), (make(kind), None), (make(kind), goal[:, :1])):
        with pytest.raises(UsageError, match="zeros stand for no goal"):
            net(noisy, level, observation, given)


def test_dropped_goals():
    goal = torch.ones(20_000, 2, 3)
    whole = drop_goal(goal, 0.1, seed())
    assert set(whole.sum((1, 2)).tolist()) == {0.0, 6.0}
    assert (whole.sum((1, 2)) == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    single = drop_goal(goal, 0.1, seed(), unit="feature")
    assert single.mean().item() == pytest.approx(0.9, abs=0.01)
    assert (single.sum((1, 2)) == 6).float().mean().item() == pytest.approx(0.9**6, abs=0.02)
    assert torch.equal(drop_goal(goal, 0.0, seed()), goal)
    assert drop_goal(goal, 1.0, seed()).abs().max() == 0
    assert torch.equal(drop_goal(goal, 0.5, seed(3)), drop_goal(goal, 0.5, seed(3)))


def test_sinusoids_by_hand():
    embedded = sinusoidal(torch.tensor([0.0, 2.0]), 4, longest_period=100.0)
    expected = [math.sin(2.0), math.sin(0.02), math.cos(2.0), math.cos(0.02)]
    torch.testing.assert_close(embedded, torch.tensor([[0.0, 0.0, 1.0, 1.0], expected]))
    assert sinusoidal(torch.zeros(2, 3), 8).shape == (2, 3, 8)
    with pytest.raises(UsageError, match="even"):
        sinusoidal(torch.zeros(1), 5)


def test_thermometers_by_hand():
    assert thermometer(torch.tensor([3, 0, 5]), 5).tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="horizon=6"):
        UNetDenoiser(6, A, HISTORY, S, (8, 8, 8), generator=seed())
    with pytest.raises(UsageError, match="groups=8"):
        UNetDenoiser(8, A, HISTORY, S, (12,), generator=seed())
    with pytest.raises(UsageError, match="kernel=4"):
        UNetDenoiser(8, A, HISTORY, S, (8,), generator=seed(), kernel=4)
    with pytest.raises(UsageError, match="history=3, horizon=8"):
        TransformerDenoiser(8, A, 3, S, generator=seed(), interleaved=True)
    with pytest.raises(UsageError, match="probability"):
        drop_goal(torch.zeros(1, 1, 1), 1.5, seed())
    with pytest.raises(UsageError, match="unit"):
        drop_goal(torch.zeros(1, 1, 1), 0.5, seed(), unit="row")
