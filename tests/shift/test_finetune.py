"""Training on the grid through the training room."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sutura.dataset import Dataset  # noqa: E402
from sutura.shift.finetune import PRESETS, FineTuneConfig, fine_tuned, radam  # noqa: E402
from sutura.shift.grid import log_rounded, ps_grid, q_grid  # noqa: E402
from sutura.shift.parametrisation import drawn, plain, shifted_module  # noqa: E402
from sutura.training.config import TrainConfig, schedule_of  # noqa: E402


def task():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)).astype(np.float32)
    y = (x @ rng.standard_normal((6, 3))).argmax(axis=1).astype(np.int64)
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3)), Dataset("task.npz", x, y)


@pytest.mark.parametrize(("method", "rate"), [("q", 0.05), ("ps", 0.05)])
def test_a_network_learns_and_stays_on_the_grid(method, rate):
    module, data = task()
    settings = TrainConfig(epochs=30, batch=50, rate=rate, optimiser={"q": "sgd", "ps": radam}[method])
    config = FineTuneConfig(method=method, bits=4, training=settings)
    made = fine_tuned(module, data, config)
    again = fine_tuned(module, data, config)
    assert made.losses == again.losses
    ordinary = plain(made.module)
    scores = ordinary(torch.tensor(data.x)).detach().numpy()
    assert np.mean(scores.argmax(axis=1) == data.y) > 0.8
    assert made.losses[-1] < 0.7 * made.losses[0]
    for i in (0, 2):
        weight = ordinary[i].weight.detach().numpy()
        assert (log_rounded(weight, (q_grid if method == "q" else ps_grid)(4)) == weight).all()


def test_presets_are_the_published_ones():
    q, ps = PRESETS["q"], PRESETS["ps"]
    assert (q.epochs, q.batch, q.rate, q.optimiser, q.momentum) == (15, 128, 1e-3, "sgd", 0.9)
    assert (ps.epochs, ps.rate, ps.optimiser) == (15, 1e-3, radam)
    rates = [schedule_of(ps)(epoch / 15) for epoch in (0, 4, 5, 9, 10, 14)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_shifts_and_signs_do_not_decay():
    made = shifted_module(task()[0], "ps", 5, keep=["2"])
    groups = radam(made, PRESETS["ps"]).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.0), (3, 1e-4)]


def test_training_from_scratch_draws_as_published():
    module = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(72, 40))
    for bits, lowest in ((5, -14), (3, -2)):
        made = drawn(shifted_module(module, "ps", bits), seed=1)
        again = drawn(shifted_module(module, "ps", bits), seed=1)
        for at, (low, high) in ((0, (-10, -1)), (2, (lowest, 0))):
            shift, sign = (
                made[at].parametrizations.weight.original0,
                made[at].parametrizations.weight.original1,
            )
            assert torch.equal(shift, again[at].parametrizations.weight.original0)
            assert low <= shift.min() < low + 0.1 * (high - low)
            assert high - 0.1 * (high - low) < shift.max() <= high
            assert -1 <= sign.min() < -0.9 < 0.9 < sign.max() <= 1
    assert torch.equal(
        drawn(shifted_module(module, "q", 5), 1)[2].weight, shifted_module(module, "q", 5)[2].weight
    )


def test_a_network_learns_from_scratch():
    module, data = task()
    settings = TrainConfig(epochs=30, batch=50, rate=0.05, optimiser=radam)
    made = fine_tuned(module, data, FineTuneConfig(bits=5, scratch=True, training=settings))
    assert made.losses[-1] < 0.7 * made.losses[0]
