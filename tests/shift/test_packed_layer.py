"""The packed layer in PyTorch: same numbers, and it exports, compiles and saves like any other."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from shift_networks import classifier, samples  # noqa: E402

from sutura.errors import ShiftError  # noqa: E402
from sutura.network.evaluate import evaluate  # noqa: E402
from sutura.shift import packed_layer  # noqa: E402
from sutura.shift.convert import ShiftConfig, to_shift  # noqa: E402
from sutura.shift.grid import ps_grid, q_grid  # noqa: E402
from sutura.shift.kernel import Decoding, linear  # noqa: E402
from sutura.shift.layout import laid_out  # noqa: E402
from sutura.shift.pack import Packed  # noqa: E402
from sutura.shift.packed_layer import PackedLinear, packed_linear, packed_module  # noqa: E402

Q5 = q_grid(5)


def layer(grid=Q5, shape=(6, 90), activations="float32", seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << grid.bits, shape).astype(np.uint8)
    part = Packed(shape, grid, codes, rng.uniform(0.5, 2, shape[0]).astype(np.float32))
    bias = rng.normal(size=shape[0]).astype(np.float32)
    return PackedLinear(part, bias, activations), part, bias


@pytest.mark.parametrize("grid", [q_grid(5), ps_grid(4)])
@pytest.mark.parametrize("batch", [1, 5, 40])
def test_it_computes_what_the_kernel_does(grid, batch):
    x = np.random.default_rng(1).normal(size=(batch, 90)).astype(np.float32)
    for activations in ("float32", "int8"):
        made, part, bias = layer(grid, activations=activations)
        want = linear(laid_out(part), x, bias, activations=activations)
        assert np.allclose(made(torch.tensor(x)).numpy(), want, rtol=1e-5, atol=1e-5)
    made, part, bias = layer(grid)
    assert np.allclose(made(torch.tensor(x)).numpy(), x @ part.rows().T + bias, rtol=1e-4, atol=1e-4)
    assert made(torch.tensor(x).reshape(batch, 1, 90)).shape == (batch, 1, 6)


def test_it_runs_without_kernels(monkeypatch):
    made, part, bias = layer()
    x = torch.ones(2, 90)
    monkeypatch.setattr(packed_layer, "kernels", lambda: Decoding("a test"))
    assert np.allclose(made(x).numpy(), x.numpy() @ part.rows().T + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [q_grid(5), ps_grid(5), ps_grid(4)])
def test_what_other_devices_do_equals_the_kernels(grid):
    """Decoding in PyTorch, which needs no GPU to be tested."""
    x = torch.randn(3, 90)
    for activations in ("float32", "int8"):
        made, part, _ = layer(grid, activations=activations)
        parts = (made.fields, made.signs, made.tables, made.scale, made.bias)
        assert torch.equal(packed_layer.decoded_weight(*parts[:4], 90), torch.tensor(part.rows()))
        whole = activations == "int8"
        got = packed_layer._on_gpu(x, *parts, 90, made.unit, whole)
        assert torch.allclose(got, made(x), rtol=1e-4, atol=1e-4)


def test_the_operator_is_one_that_pytorch_accepts():
    made, _, _ = layer()
    parts = (made.fields, made.signs, made.tables, made.scale, made.bias)
    torch.library.opcheck(packed_linear, (torch.randn(2, 90), *parts, 90, made.unit, False))


def test_it_exports_and_its_state_loads():
    made, _, _ = layer()
    x = torch.randn(3, 90)
    exported = torch.export.export(made, (x,)).module()
    assert torch.equal(exported(x), made(x))
    other, _, _ = layer(seed=5)
    assert not torch.equal(other(x), made(x))
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))


def test_bad_words_and_bad_numbers():
    with pytest.raises(ShiftError, match="no activations are called 'int4'"):
        layer(activations="int4")
    made, _, _ = layer(activations="int8")
    with pytest.raises(ShiftError, match="not finite"):
        made(torch.full((1, 90), float("nan")))


@pytest.mark.parametrize("bits", [5, 4, 3])
def test_a_network_runs_packed(bits):
    network = classifier()
    data = samples(network)
    made = to_shift(network, ShiftConfig(bits=bits), data=data)
    module = packed_module(made)
    assert sum(isinstance(part, PackedLinear) for part in module.modules()) == 3
    want = evaluate(made.network, data.x.astype(np.float64))
    for batch in (1, 64):
        got = module(torch.tensor(data.x[:batch])).detach().numpy()
        assert np.allclose(got, want[:batch], rtol=1e-4, atol=1e-4)
    near = packed_module(made, "int8")(torch.tensor(data.x)).detach().numpy()
    assert 0 < np.abs(near - want).max() < 0.1 * np.abs(want).max()
