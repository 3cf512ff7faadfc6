"""Networks as PyTorch modules; skipped where the torch extra is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import mlp, numbers
from test_onnx_operators import CASES

torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")

from sutura.network import ops  # noqa: E402
from sutura.network.evaluate import evaluate  # noqa: E402
from sutura.network.onnx_read import parse_onnx  # noqa: E402
from sutura.network.selfcheck import tolerance  # noqa: E402
from sutura.network.torch_read import from_torch  # noqa: E402
from sutura.network.torch_write import LAYERS, to_module  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", CASES)
def test_module_computes_what_the_network_does(name):
    network = parse_onnx(CASES[name][0], name)
    x = numbers(3, *network.input_shape, seed=7, scale=2.0)
    with torch.no_grad():
        y = to_module(network)(torch.tensor(x)).numpy()
    assert y.shape == (3, *network.output_shape)
    assert np.max(np.abs(y - evaluate(network, x.astype(np.float64)))) <= tolerance(network, x)


@pytest.mark.parametrize("name", ["average", "conv", "gemm", "max_ceil_exact", "norm"])
def test_module_reads_as_a_network_again(name):
    network = parse_onnx(CASES[name][0], name)
    x = numbers(3, *network.input_shape, seed=7)
    again = from_torch(to_module(network), torch.tensor(x))
    wide = x.astype(np.float64)
    assert np.max(np.abs(evaluate(again, wide) - evaluate(network, wide))) <= 2 * tolerance(network, x)


def test_every_operator_has_a_layer():
    assert {*LAYERS, ops.MatMul} == set(ops.Op.__args__)


def test_products_and_sums_become_linear_layers():
    module = to_module(parse_onnx(mlp(), "mlp"))
    kinds = [type(part).__name__ for part in module.children()]
    assert kinds == ["Linear", "ReLU", "Linear"]
    assert module.training is False
    assert all(p.requires_grad for p in module.parameters())


def test_training_the_module_leaves_the_network_alone():
    network = parse_onnx(mlp(), "mlp")
    before = [n.op.weight.copy() for n in network.nodes if isinstance(n.op, ops.MatMul | ops.Gemm)]
    module = to_module(network)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    after = [n.op.weight for n in network.nodes if isinstance(n.op, ops.MatMul | ops.Gemm)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not np.array_equal(next(module.parameters()).detach().numpy(), before[0].T)
