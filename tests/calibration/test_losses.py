"""FALCON's losses by hand, stop-gradient included; the other objectives against what defines them."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")
pytest.importorskip("safetensors", reason="torch extra not installed: pip install 'sutura[torch]'")

from torch import nn  # noqa: E402

from sutura.calibration.adversary import Space, fgsm  # noqa: E402
from sutura.calibration.falcon import (  # noqa: E402
    FalconConfig,
    annealed,
    calibration_paper,
    calibration_released,
    entropy_paper,
    entropy_released,
    falcon,
)
from sutura.calibration.graded import (  # noqa: E402
    GradedConfig,
    bends,
    faded,
    graded,
    partly_shuffled,
    perturbed,
)
from sutura.calibration.objective import (  # noqa: E402
    adversarial,
    divergence_from_even,
    evidential,
    label_smoothing,
    plain,
)
from sutura.dataset import Dataset  # noqa: E402
from sutura.errors import CalibrationError  # noqa: E402
from sutura.training.config import TrainConfig  # noqa: E402
from sutura.training.train import Moment, train  # noqa: E402

# three samples of three classes; log-probabilities serve as scores
P = [[0.74, 0.16, 0.10], [0.08, 0.28, 0.64], [0.24, 0.52, 0.24]]
Y = torch.tensor([0, 1, 1])
LAST = Moment(9, 10, 0, 1, 0.1)


def scores():
    return torch.tensor(P, dtype=torch.float64).log().requires_grad_(True)


def test_entropy_of_the_paper_by_hand():
    expected = -sum(math.log(p) for p in (0.16, 0.10, 0.08, 0.64, 0.24, 0.24)) / 3 / 3
    assert entropy_paper(scores(), Y).item() == pytest.approx(expected, abs=1e-12)


def test_entropy_as_released_by_hand_and_blind_to_the_true_class():
    rest = [(16 / 26, 10 / 26), (8 / 72, 64 / 72), (0.5, 0.5)]
    expected = -sum(math.log(a) + math.log(b) for a, b in rest) / 2 / 3
    z = scores()
    value = entropy_released(z, Y)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    value.backward()
    assert z.grad[torch.arange(3), Y].abs().max() < 1e-12
    with torch.no_grad():
        raised = scores()
        raised[torch.arange(3), Y] += 3
    assert entropy_released(raised, Y).item() == pytest.approx(expected, abs=1e-9)


def test_entropy_as_released_is_held_by_keras_limit():
    z = torch.tensor([[0.0, 0.0, -200.0]], dtype=torch.float64)
    value = entropy_released(z, torch.tensor([0]))
    assert value.item() == pytest.approx(-(math.log(1 - 1e-7) + math.log(1e-7)) / 2)
    sure = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    certain = entropy_released(sure, torch.tensor([0]))
    certain.backward()
    assert certain.item() == pytest.approx(math.log(2))
    assert torch.isfinite(sure.grad).all()


def test_calibration_terms_by_hand_with_the_accuracies_held_still():
    """Confidences .74, .64, .52 lie in bins of their own: accuracies 1, 0, 1."""
    z = scores()
    paper, released = calibration_paper(z, Y), calibration_released(z, Y)
    assert paper.item() == pytest.approx((0.26 + 0.64 + 0.48) / 3, abs=1e-12)
    assert released.item() == pytest.approx((0.26**2 + 0.64**2 + 0.48**2) / 2, abs=1e-12)
    p = torch.tensor(P, dtype=torch.float64)
    top, signs, gaps = [0, 2, 1], [-1, 1, -1], [-0.26, 0.64, -0.48]
    for value, slope in ((paper, [s / 3 for s in signs]), (released, gaps)):
        (gradient,) = torch.autograd.grad(value, z, retain_graph=True)
        for i, k in enumerate(top):
            softmax_slope = p[i, k] * ((torch.arange(3) == k).double() - p[i])
            assert torch.allclose(gradient[i], slope[i] * softmax_slope, atol=1e-12)


def test_samples_of_one_bin_share_their_accuracy():
    z = torch.tensor([[0.62, 0.38], [0.68, 0.32], [0.35, 0.65]], dtype=torch.float64).log()
    y = torch.tensor([0, 1, 1])
    assert calibration_paper(z, y).item() == pytest.approx(abs(2 - 0.62 - 0.68 - 0.65) / 3, abs=1e-12)
    expected = sum((2 / 3 - c) ** 2 for c in (0.62, 0.68, 0.65)) / 2
    assert calibration_released(z, y).item() == pytest.approx(expected, abs=1e-12)


def test_annealing_counts_epochs():
    at = [Moment(epoch, 10, step, 5, 0.1) for epoch, step in ((0, 0), (0, 4), (4, 0), (9, 0))]
    assert [annealed(2.0, m, 1.0) for m in at] == pytest.approx([0.2, 0.2, 1.0, 2.0])
    assert [annealed(2.0, m, 0.5) for m in at] == pytest.approx([0.4, 0.4, 2.0, 2.0])
    assert annealed(2.0, at[0], 0.0) == 2.0


def test_fgsm_by_hand_within_limits_and_without_dropout():
    module = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2, bias=False))
    module[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    module.train()
    x = torch.tensor([[0.5, 0.5], [0.05, 0.95]])
    moved = fgsm(module, x, torch.tensor([0, 1]), 0.1, Space())
    assert torch.allclose(moved, torch.tensor([[0.4, 0.6], [0.15, 0.85]]))
    assert module.training
    assert module[0].training
    far = fgsm(module, x, torch.tensor([0, 1]), 0.8, Space())
    assert far.min() == 0
    assert far.max() == 1
    open_ended = fgsm(module, x, torch.tensor([0, 1]), 0.8, Space(low=None, high=None))
    assert open_ended.min() < 0


def test_adversarial_samples_never_enter_the_cross_entropy():
    """With the calibration term weighed zero, FALCON is training with the entropy term alone."""
    module, x = nn.Linear(4, 3), torch.rand(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    objective = falcon(FalconConfig(adversarial=0.0))
    expected = nn.functional.cross_entropy(module(x), y) + entropy_released(module(x), y)
    assert torch.allclose(objective.loss(module, x, y, LAST), expected)
    before = module.weight.clone()
    objective.after(module, x, y, LAST)
    assert torch.equal(module.weight, before)


def test_the_second_optimiser_is_plain_descent_on_the_calibration_term():
    torch.manual_seed(0)
    module, x = nn.Linear(4, 3), torch.rand(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    config = FalconConfig(strengths=(0.2,), adversarial=5.0)
    points = fgsm(module, x, y, 0.2, config.space)
    (slope,) = torch.autograd.grad(calibration_released(module(points), y), [module.weight])
    expected = module.weight.detach() - LAST.rate * 5.0 * slope
    falcon(config).after(module, x, y, LAST)
    assert torch.allclose(module.weight, expected, atol=1e-7)


def test_the_paper_form_is_one_loss():
    torch.manual_seed(0)
    module, x = nn.Linear(4, 3), torch.rand(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    config = FalconConfig(form="paper", entropy=0.5, adversarial=2.0, strengths=(0.3,))
    points = fgsm(module, x, y, 0.3, config.space)
    expected = (
        nn.functional.cross_entropy(module(x), y)
        + 0.5 * entropy_paper(module(x), y)
        + 2.0 * calibration_paper(module(points), y)
    )
    assert torch.allclose(falcon(config).loss(module, x, y, LAST), expected)


def test_probability_decides_how_often_a_batch_is_perturbed():
    module, x, y = nn.Linear(4, 3), torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    step, moved = falcon(FalconConfig(probability=0.25, strengths=(0.2,))).after, 0
    torch.manual_seed(1)
    for _ in range(400):
        before = module.weight.clone()
        step(module, x, y, Moment(9, 10, 0, 1, 1e-4))
        moved += not torch.equal(before, module.weight)
    assert 70 <= moved <= 130


def test_falcon_in_an_embedding_space():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.after(self.table(x.long()))

        def after(self, h):
            return self.head(h.mean(dim=1))

    space = Space(lambda m, x: m.table(x.long()), lambda m, h: m.after(h), None, None)
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    x = np.where(rng.random((80, 6)) < 0.6, y[:, None] * 9 + rng.integers(1, 10, (80, 6)), 0).astype(
        np.float32
    )
    torch.manual_seed(0)
    data = Dataset("words.npz", x, y)
    config = TrainConfig(epochs=40, batch=20, rate=0.02)
    losses = train(Words(), data, config, loss=falcon(FalconConfig(adversarial=1.0, space=space))).losses
    assert losses[-1] < 0.7 * losses[0]


def test_label_smoothing_and_penalty_by_hand():
    module, x, y = nn.Linear(2, 2), torch.rand(4, 2), torch.tensor([0, 1, 1, 0])
    log_p = torch.log_softmax(module(x), dim=1)
    target = torch.full((4, 2), 0.05).scatter_(1, y[:, None], 0.95)
    assert torch.allclose(label_smoothing(0.1).loss(module, x, y, LAST), -(target * log_p).sum(1).mean())
    more = plain(0.5).loss(module, x, y, LAST) - plain().loss(module, x, y, LAST)
    assert torch.allclose(more, 0.5 * module.weight.square().sum())


def test_divergence_of_dirichlets_is_torchs():
    alpha = torch.tensor([[1.0, 2.5, 7.0], [1.0, 1.0, 1.0]])
    even = torch.distributions.Dirichlet(torch.ones(2, 3))
    told = torch.distributions.kl_divergence(torch.distributions.Dirichlet(alpha), even)
    assert torch.allclose(divergence_from_even(alpha), told, atol=1e-6)
    assert divergence_from_even(alpha)[1].abs() < 1e-6


def test_evidence_loss_by_hand():
    """Scores (2, -1): alpha (3, 1), p (3/4, 1/4); the label is class 0, so no evidence misleads."""
    module = nn.Linear(1, 2, bias=False)
    module.weight.data = torch.tensor([[2.0], [-1.0]])
    x = torch.ones(1, 1)
    right = 2 * (1 / 16) + 2 * (3 / 16) / 5
    assert evidential().loss(module, x, torch.tensor([0]), LAST).item() == pytest.approx(right)
    first = Moment(0, 10, 0, 1, 0.1)
    wrong = 2 * (9 / 16) + 2 * (3 / 16) / 5
    assert evidential().loss(module, x, torch.tensor([1]), first).item() == pytest.approx(wrong)
    misled = divergence_from_even(torch.tensor([[3.0, 1.0]])).item()
    later = evidential().loss(module, x, torch.tensor([1]), LAST).item()
    assert later == pytest.approx(wrong + 0.9 * misled, rel=1e-5)


def test_adversarial_training_adds_the_perturbed_samples():
    module, x, y = nn.Linear(2, 2), torch.rand(4, 2), torch.tensor([0, 1, 1, 0])
    points = fgsm(module, x, y, 0.1, Space())
    expected = nn.functional.cross_entropy(module(x), y) + nn.functional.cross_entropy(module(points), y)
    assert torch.allclose(adversarial(0.1).loss(module, x, y, LAST), expected)


def test_targets_fade_from_the_label_to_an_even_spread():
    told = faded(torch.tensor([1, 1, 1]), torch.tensor([0.0, 0.5, 1.0]), 4)
    assert torch.allclose(told[0], torch.tensor([0, 1.0, 0, 0]))
    assert torch.allclose(told[1], torch.tensor([0.125, 0.625, 0.125, 0.125]))
    assert torch.allclose(told[2], torch.full((4,), 0.25))


def test_a_partly_shuffled_row_is_a_permutation_with_the_rest_in_place():
    torch.manual_seed(0)
    order = partly_shuffled(500, 16, torch.cat([torch.zeros(100), torch.full((400,), 0.5)]))
    assert torch.equal(order.sort(dim=1).values, torch.arange(16).expand(500, -1))
    assert torch.equal(order[:100], torch.arange(16).expand(100, -1))
    moved = (order[100:] != torch.arange(16)).float().mean().item()
    assert moved == pytest.approx(0.5 * 7 / 8, abs=0.05)


@pytest.mark.parametrize("kind", ["noise", "mix", "blocks", "adversary"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 9, 7), (12,), (6, 8)])
def test_perturbations_keep_shape_and_range_and_grow(kind, shape):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))
    x, y = torch.rand(200, *shape), torch.randint(3, (200,))
    points, spread = perturbed(module, x, y, GradedConfig(kinds=(kind,)))
    assert points.shape == x.shape
    assert points.min() >= 0
    assert points.max() <= 1
    distance = (points - x).abs().flatten(1).mean(dim=1)
    assert distance[spread > 0.7].mean() > 1.5 * distance[spread < 0.3].mean()
    if kind == "blocks":
        assert torch.allclose(points.flatten(1).sort().values, x.flatten(1).sort().values)


def test_unknown_forms_and_kinds_name_the_nearest():
    with pytest.raises(CalibrationError, match="called 'papr'; did you mean 'paper'"):
        falcon(FalconConfig(form="papr"))
    with pytest.raises(CalibrationError, match="called 'block'; did you mean 'blocks'"):
        graded(GradedConfig(kinds=("block",)))


@pytest.mark.parametrize("objective", [falcon(), falcon(FalconConfig(form="paper")), adversarial(), graded()])
def test_titles_are_the_same_in_every_process_so_that_a_killed_run_goes_on(objective):
    assert " at 0x" not in objective.title
    assert objective.title


def test_titles_tell_settings_and_spaces_apart():
    other = falcon(FalconConfig(space=Space(lambda module, x: x, lambda module, h: h)))
    titles = {falcon().title, falcon(FalconConfig(entropy=0.5)).title, other.title}
    assert len(titles) == 3


def test_bends_are_smooth_of_size_one_and_have_no_affine_part():
    torch.manual_seed(0)
    field = bends(5, 28, 20, torch.zeros((), dtype=torch.float64))
    assert torch.allclose(field.square().sum(dim=1).mean(dim=(1, 2)), torch.ones(5, dtype=torch.float64))
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(20.0), indexing="ij")
    for affine in (torch.ones(28, 20), rows, columns):
        assert (field * affine).sum(dim=(2, 3)).abs().max() < 1e-9
    assert field.diff(dim=2).abs().max() < 1
    assert bends(2, 1, 20, torch.zeros(()))[:, 1].abs().max() == 0


@pytest.mark.parametrize("shape", [(12,), (9, 7), (3, 9, 7)])
def test_a_bend_of_strength_zero_changes_nothing_and_one_of_strength_one_does(shape):
    torch.manual_seed(1)
    x = torch.rand(4, *shape)
    points, spread = perturbed(None, x, torch.zeros(4), GradedConfig(kinds=("bend",), bend=0.0))
    assert torch.allclose(points, x, atol=1e-5)
    assert ((spread >= 0) & (spread < 1)).all()
    bent, _ = perturbed(None, x, torch.zeros(4), GradedConfig(kinds=("bend",)))
    assert (bent - x).abs().flatten(1).max(dim=1).values.min() > 0.01
    assert bent.min() >= x.min()
    assert bent.max() <= x.max()


def test_graded_training_learns_and_repeats_itself():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    x = np.clip(np.eye(3)[y].repeat(4, axis=1) + rng.normal(scale=0.1, size=(90, 12)), 0, 1).astype(
        np.float32
    )
    torch.manual_seed(0)
    module, config = nn.Linear(12, 3), TrainConfig(epochs=20, batch=30, rate=0.05)
    first, again = (train(module, Dataset("d.npz", x, y), config, loss=graded()) for _ in range(2))
    assert torch.equal(first.module.weight, again.module.weight)
    assert (first.module(torch.tensor(x)).argmax(1).numpy() == y).all()
