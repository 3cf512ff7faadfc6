"""The layers to train, against numpy and against gradients computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

from sutura.errors import ShiftError  # noqa: E402
from sutura.shift.grid import BITS, log_rounded, ps_grid, ps_weight, q_grid  # noqa: E402
from sutura.shift.parametrisation import PsShift, QShift, clamp, plain, shifted_module  # noqa: E402


def numbers(*shape, seed=0):
    rng = np.random.default_rng(seed)
    w = (rng.standard_normal(shape) * 2.0 ** rng.integers(-16, 2, shape)).astype(np.float32)
    w.reshape(-1)[:2] = 0.0, -0.0
    return w


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))


@pytest.mark.parametrize("bits", BITS)
def test_both_forms_are_those_of_numpy(bits):
    w = numbers(40, 30)
    assert (QShift(bits)(torch.tensor(w)).numpy() == log_rounded(w, q_grid(bits))).all()
    form = PsShift(bits)
    shift, sign = form.right_inverse(torch.tensor(w))
    assert (form(shift, sign).numpy() == log_rounded(w, ps_grid(bits))).all()
    rng = np.random.default_rng(1)
    p, s = (rng.uniform(-20, 3, 500).astype(np.float32), rng.uniform(-2, 2, 500).astype(np.float32))
    assert (form(torch.tensor(p), torch.tensor(s)).numpy() == ps_weight(p, s, ps_grid(bits))).all()


def test_gradient_of_q_goes_straight_through():
    w = torch.tensor([0.3, -3.0, 1e-9, 0.0, -0.6], requires_grad=True)
    g = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.5])
    (QShift(4)(w) * g).sum().backward()
    assert w.grad.tolist() == g.tolist()


def test_gradient_of_ps_is_unsymmetric():
    p = torch.tensor([-1.2, -3.0, -2.0, 5.0], requires_grad=True)
    s = torch.tensor([1.0, -0.7, 0.2, 0.9], requires_grad=True)
    g = torch.tensor([1.0, 2.0, 3.0, 4.0])
    w = PsShift(4)(p, s)
    assert w.tolist() == [0.5, -0.125, 0.0, 1.0]
    (w * g).sum().backward()
    assert p.grad.tolist() == pytest.approx([0.5 * math.log(2), -0.25 * math.log(2), 0.0, 4 * math.log(2)])
    assert s.grad.tolist() == g.tolist()


@pytest.mark.parametrize("form", [QShift, PsShift])
def test_stochastic_rounding_keeps_the_mean_exponent_and_eval_is_deterministic(form):
    torch.manual_seed(1)
    layer = form(5, "stochastic")
    p = torch.full((20_000,), -2.75)
    parts = (2.0**p,) if form is QShift else (p, torch.ones_like(p))
    exponents = layer(*parts).log2()
    assert set(exponents.tolist()) == {-3.0, -2.0}
    assert exponents.mean().item() == pytest.approx(-2.75, abs=0.02)
    assert set(layer.eval()(*parts).tolist()) == {0.125}


@pytest.mark.parametrize("method", ["q", "ps"])
def test_a_module_is_shifted_exported_and_saved(method):
    before = net().eval()
    made = shifted_module(before, method, 3)
    assert all(
        type(m) in (nn.Conv2d, nn.Linear, nn.ReLU, nn.Flatten, nn.Sequential) for m in before.modules()
    )
    grid = q_grid(3) if method == "q" else ps_grid(3)
    for i in (0, 3):
        old = before[i].weight.detach().numpy()
        assert (made[i].weight.detach().numpy() == log_rounded(old, grid)).all()
    x = torch.randn(2, 2, 4, 4)
    exported = torch.export.export(made, (x,)).module()
    assert torch.equal(exported(x), made(x))
    other = shifted_module(net().eval(), method, 3)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))
    assert torch.equal(plain(made)(x), made(x))
    assert not any(parametrize.is_parametrized(m) for m in plain(made).modules())
    assert type(plain(made)[0]) is nn.Conv2d
    assert parametrize.is_parametrized(made[0])


def test_a_state_says_what_it_is():
    state = shifted_module(net(), "q", 3).state_dict()
    with pytest.raises(ShiftError, match="this state is of q with 3 bits, the layer is q with 4 bits"):
        shifted_module(net(), "q", 4).load_state_dict(state)


def test_forward_writes_to_no_parameter_and_clamp_does():
    made = shifted_module(net(), "q", 3)
    weight = made[3].parametrizations.weight.original
    with torch.no_grad():
        weight.copy_(torch.linspace(-3, 3, 60).reshape(5, 12))
    version = weight._version
    made(torch.randn(2, 2, 4, 4)).sum().backward()
    assert weight._version == version
    clamp(made)
    assert weight.abs().max() == 1
    assert weight.abs().min() == 2.0**-3
    made = shifted_module(net(), "ps", 3)
    made[3].parametrizations.weight.original0.data.fill_(-9)
    clamp(made)
    assert set(made[3].parametrizations.weight.original0.flatten().tolist()) == {-2.0}


@pytest.mark.parametrize(("method", "optimiser", "rate"), [("q", "SGD", 0.05), ("ps", "RAdam", 0.05)])
def test_training_lowers_the_loss_on_the_grid(method, optimiser, rate):
    torch.manual_seed(0)
    x = torch.randn(64, 2, 4, 4)
    y = x.mean(dim=(1, 2, 3)).gt(0).long()
    made = shifted_module(net(), method, 5)
    steps = getattr(torch.optim, optimiser)(made.parameters(), lr=rate)
    losses = []
    for _ in range(120):
        loss = nn.functional.cross_entropy(made(x), y)
        steps.zero_grad()
        loss.backward()
        steps.step()
        clamp(made)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    log = made[3].weight.detach().abs().log2()
    assert torch.equal(log[log.isfinite()], log[log.isfinite()].round())


def test_layers_are_left_out_by_name():
    made = shifted_module(net(), "q", 5, keep=["0"])
    assert not parametrize.is_parametrized(made[0])
    assert parametrize.is_parametrized(made[3])
    with pytest.raises(ShiftError, match="no layer is called 'fc'; there are '0', '3'"):
        shifted_module(net(), "q", 5, keep=["fc"])
    with pytest.raises(ShiftError, match="no method to train is called 'ours'; known: q, ps"):
        shifted_module(net(), "ours", 5)
