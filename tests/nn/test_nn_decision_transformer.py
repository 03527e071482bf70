"""The decision transformer and its blocks: causality, padding, attention against its definition."""

import math

import pytest
import torch
from torch.nn import functional as F

from braid.errors import UsageError
from braid.nn.decision_transformer import DecisionTransformer
from braid.nn.transformer import Block, CausalTransformer, causal_mask

S, A, K = 3, 2, 6


def seed(number=0):
    return torch.Generator().manual_seed(number)


def model(**options):
    return DecisionTransformer(S, A, 50, generator=seed(), width=16, layers=2, heads=2, **options).eval()


def window(batch=2, steps=K, number=1):
    generator = seed(number)
    return {
        "return_to_go": torch.randn(batch, steps, generator=generator),
        "observation": torch.randn(batch, steps, S, generator=generator),
        "action": torch.randn(batch, steps, A, generator=generator),
        "time": torch.arange(steps).expand(batch, steps) + 10,
        "valid": torch.ones(batch, steps, dtype=torch.bool),
    }


def test_a_block_is_attention_and_a_perceptron_by_definition():
    torch.manual_seed(0)
    block = Block(8, 2, 0.0, 0.0, "relu").eval()
    x = torch.randn(3, 5, 8, generator=seed(1))
    query, key, value = block.query_key_value(block.attention_norm(x)).chunk(3, dim=-1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        score = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        score = score.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(torch.softmax(score, -1) @ value[..., part])
    expected = x + block.attention_output(torch.cat(heads, -1))
    expected = expected + block.contract(F.relu(block.expand(block.perceptron_norm(expected))))
    torch.testing.assert_close(block(x, None), expected)
    torch.testing.assert_close(block(x, causal_mask(torch.ones(3, 5, dtype=torch.bool))), expected)


def test_masks_by_hand():
    mask = causal_mask(torch.tensor([[False, True, True]]))
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("step", range(K))
def test_an_action_knows_only_what_came_before_it(step):
    net, data = model(), window()
    before = net(**data)
    changed = {**data}
    for name in ("return_to_go", "observation"):
        changed[name] = data[name].clone()
        changed[name][:, step + 1 :] += 5.0
    changed["action"] = data["action"].clone()
    changed["action"][:, step:] += 5.0  # its own action included
    after = net(**changed)
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1])
    for name in ("return_to_go", "observation"):
        seen = {**data, name: data[name].clone()}
        seen[name][:, step] += 5.0
        assert (net(**seen)[:, step] - before[:, step]).abs().max() > 1e-6
    if step < K - 1:
        seen = {**data, "action": data["action"].clone()}
        seen["action"][:, step] += 5.0
        assert (net(**seen)[:, step + 1] - before[:, step + 1]).abs().max() > 1e-6


def padded(data, left, right, filler):
    grown = {}
    for name, tensor in data.items():
        fill = {"time": 3, "valid": False}.get(name, filler)
        sizes = [(left, "l"), (right, "r")]
        pads = [torch.full((tensor.shape[0], n, *tensor.shape[2:]), fill, dtype=tensor.dtype) for n, _ in sizes]
        grown[name] = torch.cat([pads[0], tensor, pads[1]], dim=1)
    return grown


@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 3), (2, 1)])
@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_on_either_side_changes_nothing(left, right, filler):
    net, data = model(), window()
    expected = net(**data)
    actual = net(**padded(data, left, right, filler))
    torch.testing.assert_close(actual[:, left : left + K], expected, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(actual).all()


def test_padding_gets_no_gradient_and_makes_none_infinite():
    net, data = model(), padded(window(), 3, 0, 0.0)
    data["observation"].requires_grad_(True)
    net(**data)[:, 3:].sum().backward()
    assert data["observation"].grad[:, :3].abs().max() == 0
    assert data["observation"].grad[:, 3:].abs().min(dim=-1).values.max() > 0
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_time_of_a_step_matters_and_rows_do_not_mix():
    net, data = model(), window()
    before = net(**data)
    assert not torch.allclose(net(**{**data, "time": data["time"] + 1}), before)
    data["observation"][1] += 1.0
    torch.testing.assert_close(net(**data)[0], before[0])


def test_the_head_reads_the_observation_token():
    net, data = model(squash=False), window()
    encoded = net.encode(**data)
    assert encoded.shape == (2, K, 3, 16)
    torch.testing.assert_close(net(**data), net.head(encoded[:, :, 1]))
    assert model()(**data).abs().max() <= 1


def test_weights_depend_on_the_generator_alone_and_survive_saving():
    torch.manual_seed(3)
    first = model()
    torch.manual_seed(4)
    second = model()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = DecisionTransformer(S, A, 50, generator=seed(9), width=16, layers=2, heads=2).eval()
    assert not torch.allclose(other(**window()), first(**window()))
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(**window()), first(**window()))


def test_it_learns_to_copy_the_last_action():
    net = DecisionTransformer(S, A, 50, generator=seed(), width=16, layers=1, heads=1, dropout=0.0)
    data = window(batch=32)
    data["action"] = torch.tanh(data["action"])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    target = data["action"][:, :-1]
    for _ in range(120):
        loss = (net(**data)[:, 1:] - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * target.var().item()


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="heads=3"):
        CausalTransformer(16, 1, 3, generator=seed())
    with pytest.raises(UsageError, match="layers"):
        CausalTransformer(16, 0, 2, generator=seed())
    with pytest.raises(UsageError, match="longest_episode=0"):
        DecisionTransformer(S, A, 0, generator=seed())
