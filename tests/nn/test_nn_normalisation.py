"""Normalisers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import DataError, UsageError
from braid.nn.normalisation import MeanStdNormaliser, MinMaxNormaliser, RunningNormaliser


def draw(number, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def test_mean_and_std_by_hand():
    data = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    normaliser = MeanStdNormaliser.fit(data)
    torch.testing.assert_close(normaliser.mean, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(normaliser.scale, torch.tensor([1.001, 0.001]))
    torch.testing.assert_close(normaliser(data)[:, 0], torch.tensor([-1 / 1.001, 1 / 1.001]))
    torch.testing.assert_close(normaliser.inverse(normaliser(data)), data)
    floored = MeanStdNormaliser.fit(data, epsilon=0.0, smallest_std=0.01)
    torch.testing.assert_close(floored.scale, torch.tensor([1.0, 0.01]))


def test_any_leading_axes_are_rows():
    data = draw(0, 4, 5, 3)
    first, second = MeanStdNormaliser.fit(data), MeanStdNormaliser.fit(data.reshape(20, 3))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first(data).reshape(20, 3), second(data.reshape(20, 3)))


def test_min_max_maps_to_the_unit_cube_and_only_centres_constants():
    data = torch.tensor([[0.0, 2.0], [10.0, 2.0], [5.0, 2.00001]])
    normaliser = MinMaxNormaliser.fit(data)
    torch.testing.assert_close(normaliser(data)[:, 0], torch.tensor([-1.0, 1.0, 0.0]))
    torch.testing.assert_close(normaliser(data)[:, 1], torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normaliser.inverse(normaliser(data)), data)


@pytest.mark.parametrize(
    ("fitted", "fresh"),
    [
        (MeanStdNormaliser.fit(draw(0, 9, 3)), MeanStdNormaliser.identity(3)),
        (MinMaxNormaliser.fit(draw(0, 9, 3)), MinMaxNormaliser(torch.zeros(3), torch.ones(3))),
    ],
)
def test_statistics_are_saved_and_not_trained(fitted, fresh):
    x = draw(1, 4, 3)
    assert list(fitted.parameters()) == []
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(x), fitted(x))


def test_identity_changes_nothing():
    x = draw(1, 4, 3)
    assert torch.equal(MeanStdNormaliser.identity(3)(x), x)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5), offset=st.sampled_from([0.0, 1e6]))
def test_running_statistics_are_those_of_all_rows_in_any_order_and_split(sizes, offset):
    batches = [draw(i, n, 2) + offset for i, n in enumerate(sizes)]
    everything = torch.cat(batches).double()
    mean, variance = everything.mean(0), everything.var(0, unbiased=False)
    serial, parallel = RunningNormaliser(2), RunningNormaliser(2)
    for batch in batches:
        serial.update(batch)
    for batch in reversed(batches):
        worker = RunningNormaliser(2)
        worker.update(batch)
        parallel.merge(worker)
    for normaliser in (serial, parallel):
        assert normaliser.count.item() == len(everything)
        torch.testing.assert_close(normaliser.mean, mean, atol=1e-9 * max(1, offset), rtol=0)
        torch.testing.assert_close(normaliser.variance, variance, atol=1e-7, rtol=1e-6)


def test_running_normalisation_by_hand_and_its_clip():
    normaliser = RunningNormaliser(1, epsilon=1e-8, clip=10.0)
    assert normaliser(torch.tensor([[3.0]])).item() == pytest.approx(3.0)  # nothing seen yet: only the clip
    normaliser.update(torch.tensor([[1.0], [3.0]]))
    normaliser.merge(RunningNormaliser(1))  # nothing seen, nothing added
    torch.testing.assert_close(normaliser(torch.tensor([[4.0], [500.0]])), torch.tensor([[2.0], [10.0]]))
    fresh = RunningNormaliser(1)
    fresh.load_state_dict(normaliser.state_dict())
    fresh.update(torch.tensor([[2.0]]))
    assert fresh.count.item() == 3
    assert fresh.variance.item() == pytest.approx(2 / 3)
    assert normaliser.count.item() == 2


def test_a_large_offset_does_not_cost_precision():
    normaliser = RunningNormaliser(1)
    data = torch.tensor([[1e7], [1e7 + 2]], dtype=torch.float64)
    normaliser.update(data)
    torch.testing.assert_close(normaliser(data), torch.tensor([[-1.0], [1.0]], dtype=torch.float64))


def test_mistakes_are_named():
    with pytest.raises(DataError, match="row 1, feature 0"):
        MeanStdNormaliser.fit(torch.tensor([[0.0], [torch.nan]]))
    with pytest.raises(DataError, match="at least one row"):
        RunningNormaliser(2).update(torch.zeros(0, 2))
    with pytest.raises(UsageError, match="scale"):
        MeanStdNormaliser.fit(torch.ones(3, 1), epsilon=0.0)
    with pytest.raises(UsageError, match="high"):
        MinMaxNormaliser(torch.ones(1), torch.zeros(1))
    with pytest.raises(UsageError, match="epsilon"):
        RunningNormaliser(1, epsilon=0.0)
