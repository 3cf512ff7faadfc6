"""PyTorch modules in and out, and weights as safetensors; skipped where torch is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from compressible import classifier, samples

torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")

from sutura.compression.compress import compress  # noqa: E402
from sutura.compression.study import CompressConfig  # noqa: E402
from sutura.compression.weights import safetensors_of  # noqa: E402
from sutura.network.run import open_session, run  # noqa: E402
from sutura.network.torch_write import to_module  # noqa: E402


@pytest.mark.parametrize("target", [0.7, 0.3])
@pytest.mark.parametrize("method", ["portfolio", "alds-plus", "pca"])
def test_module_agrees_with_the_onnx_file(target, method):
    network = classifier()
    data = samples(network)
    made = compress(network, CompressConfig(target=target, method=method), data=data)
    with torch.no_grad():
        y = made.module()(torch.tensor(data.x)).numpy()
    assert np.max(np.abs(y - run(open_session(made.onnx), data.x))) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_modules_are_taken_with_an_example():
    module = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3)).eval()
    made = compress(module, CompressConfig(target=0.6), example=torch.zeros(1, 12))
    assert made.before.params == 12 * 20 + 20 + 20 * 3 + 3
    assert made.after.params <= 0.6 * made.before.params
    assert made.module()(torch.zeros(2, 12)).shape == (2, 3)


def test_safetensors_fill_a_fresh_module():
    load = pytest.importorskip("safetensors.torch").load

    made = compress(classifier(), CompressConfig(target=0.5))
    data = safetensors_of(made)
    fresh = to_module(classifier(9))
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict(load(data))
    module = made.module()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    module.load_state_dict(load(data))
    x = samples(classifier()).x
    with torch.no_grad():
        y = module(torch.tensor(x)).numpy()
    assert np.max(np.abs(y - run(open_session(made.onnx), x))) < 1e-5
    assert made.network.sha256.encode() in data[:4096]
