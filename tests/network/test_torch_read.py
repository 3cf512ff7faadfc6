"""PyTorch modules; skipped where the torch extra is not installed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sutura.errors import MissingExtraError, NetworkError
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run

try:
    import onnxscript  # noqa: F401
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch extra not installed: pip install sutura[torch]")
pytestmark = pytest.mark.filterwarnings("ignore")


def mlp():
    nn = torch.nn
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3), nn.Sigmoid()), (5,)


def convolutional():
    nn = torch.nn
    layers = [nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(16, 2)), (3, 8, 8)


def residual():
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

        def forward(self, x):
            h = torch.relu(self.norm(self.first(x)))
            h = torch.relu(self.second(h) + h)
            h = nn.functional.adaptive_avg_pool2d(h, 1)
            return self.head(h.view(h.size(0), -1))

    return Residual(), (2, 6, 6)


@needs_torch
@pytest.mark.parametrize("build", [mlp, convolutional, residual], ids=lambda f: f.__name__)
def test_module_and_network_agree(build):
    torch.manual_seed(0)
    module, shape = build()
    module.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    loaded = load(module, example=torch.rand(1, *shape))
    assert loaded.original is None
    data = write_onnx(loaded.network)
    assert loaded.network.sha256 == hashlib.sha256(data).hexdigest()
    x = torch.rand(5, *shape)
    with torch.no_grad():
        expected = module(x).numpy()
    assert np.max(np.abs(run(open_session(data), x.numpy()) - expected)) < 1e-6
    assert not module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


@needs_torch
def test_dropout_is_gone_and_weights_are_exact():
    module, _ = mlp()
    network = load(module.eval(), example=np.zeros((1, 5), np.float32)).network
    assert [type(n.op) for n in network.nodes] == [ops.Gemm, ops.Relu, ops.Gemm, ops.Sigmoid]
    gemm = network.nodes[0].op
    weight = gemm.weight if gemm.transposed else gemm.weight.T
    assert np.array_equal(weight, module[0].weight.detach().numpy())


@needs_torch
def test_training_mode_is_refused_and_left_alone():
    module, _ = mlp()
    module.eval()
    module[2].train()
    with pytest.raises(NetworkError, match=r"training mode; call \.eval\(\)"):
        load(module, example=torch.zeros(1, 5))
    assert module[2].training


@needs_torch
@pytest.mark.parametrize("example", ["none", "double", "no_batch", "words"])
def test_bad_examples_are_told(example):
    given = {"none": None, "double": torch.zeros(1, 5).double(), "no_batch": torch.zeros(5), "words": ["a"]}
    with pytest.raises(NetworkError, match="example"):
        load(mlp()[0].eval(), example=given[example])


@needs_torch
def test_what_cannot_be_exported_is_one_line():
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(NetworkError, match="cannot export module 'Branching'") as caught:
        load(Branching().eval(), example=torch.zeros(1, 5))
    assert "\n" not in str(caught.value)


@needs_torch
def test_what_is_no_module_is_told():
    with pytest.raises(NetworkError, match="cannot read a network from 'dict'"):
        load({"a": 1})


@pytest.mark.skipif(torch is not None, reason="torch is installed")
def test_missing_torch_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'sutura\[torch\]'"):
        load(object())
