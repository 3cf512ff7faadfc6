"""No attack of a peer succeeds inside a certified radius."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from risk_networks import chain

import sutura
from sutura.network import ops
from sutura.risk.ball import domain, inside
from sutura.risk.quantify import RiskConfig, prepared, quantify_all
from sutura.risk.safety import Adversarial

torch = pytest.importorskip("torch")
INSIDE = 0.999


def pixels(kind, count):
    def read(shared_data):
        mnist = np.load(shared_data / "mnist" / "mnist.npz")
        return mnist["x_test"][:count].reshape(count, -1).astype(np.float32) / np.float32(255)

    return f"vnncomp/{kind}", read, None


def cifar(count):
    mean, std = np.array([0.485, 0.456, 0.406]), np.full(3, 0.225)
    ends = [np.repeat((v - mean) / std, 1024).astype(np.float32) for v in (0.0, 1.0)]

    def read(shared_data):
        images = (
            np.load(shared_data / "cifar10" / "cifar10_test.npz")["x"][:count].transpose(0, 3, 1, 2) / 255.0
        )
        scaled = ((images - mean[:, None, None]) / std[:, None, None]).reshape(count, -1).astype(np.float32)
        return np.clip(scaled, *ends)

    return "vnncomp/oval21_cifar10/onnx/cifar_base_kw.onnx", read, ends


CASES = {
    "mnist_fc": pixels("mnist_fc/onnx/mnist-net_256x2.onnx", 2),
    "sigmoid": pixels("eran_mnist/onnx/ffnnSIGMOID__Point_6x200.onnx", 1),
    "oval21": cifar(1),
}


def attacked(loaded, decision, x, label, radius, limits):
    """Outputs in ONNX Runtime at what foolbox's PGD and ART's PGD find inside `radius`, as float32 points."""
    foolbox = pytest.importorskip("foolbox")
    art = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    from sutura.network.torch_write import to_module

    # Peers know one box for all inputs: they attack in units of the domain, where each input is in [0, 1].
    low, width = (torch.from_numpy(v.astype(np.float32)) for v in (limits.low, limits.high - limits.low))
    inner, sign = to_module(loaded.network), 1.0 if decision == "argmax" else -1.0

    class Scaled(torch.nn.Module):
        def forward(self, u):
            shaped = (low + u.reshape(len(u), -1) * width).reshape(-1, *loaded.network.input_shape)
            return sign * inner(shaped).reshape(len(u), -1)

    share = ((x - limits.low) / (limits.high - limits.low)).astype(np.float32)
    scaled, u, y = Scaled().eval(), torch.from_numpy(share), torch.from_numpy(label)
    model = foolbox.PyTorchModel(scaled, bounds=(0, 1), device="cpu")
    _, first, _ = foolbox.attacks.LinfPGD(steps=60)(model, u, y, epsilons=radius)
    classifier = PyTorchClassifier(
        scaled, torch.nn.CrossEntropyLoss(), (share.shape[1],), loaded.network.output_size, clip_values=(0, 1)
    )
    second = art.ProjectedGradientDescent(
        classifier, eps=radius, eps_step=radius / 10, max_iter=40, num_random_init=2, verbose=False
    ).generate(share, label)
    return [np.asarray(v, np.float64).reshape(len(x), -1) for v in (first.detach().numpy(), second)]


def check(loaded, x, config):
    limits = config.domain or domain(np.zeros(x.shape[1]), np.ones(x.shape[1]))
    seen = prepared(loaded, config)
    for row, found in zip(x, quantify_all(seen, x, config), strict=True):
        assert found.lower <= found.upper
        if not 0.0 < found.lower < np.inf:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = attacked(
                loaded, config.risk.decision, row[None], np.array([found.label]), INSIDE * found.lower, limits
            )
        for share in points:
            point = inside(limits, limits.low + share * (limits.high - limits.low))
            reach = INSIDE * found.lower * limits.scale
            point = np.clip(point, row - reach, row + reach).astype(np.float32)
            output = seen.run(point)[0]
            decided = output.argmax() if config.risk.decision == "argmax" else output.argmin()
            assert decided == found.label


@pytest.mark.parametrize("bounds", ["crown", "slopes"])
@pytest.mark.parametrize("name", CASES)
def test_peers_find_nothing_within_image_radii(shared_data, name, bounds):
    file, read, ends = CASES[name]
    limits = None if ends is None else domain(*ends)
    config = RiskConfig(domain=limits, estimator="none", bounds=bounds)
    check(sutura.load(shared_data / file), read(shared_data), config)


@pytest.mark.parametrize("name", ["1_1", "3_7"])
def test_peers_find_nothing_within_acas_radii(shared_data, name):
    stem = f"ACASXU_run2a_{name}_batch_2000"
    known = json.loads((shared_data / "acasxu" / "normalization.json").read_text())[stem]
    low, high, mean, span = (
        np.array(known[k][:5]) for k in ("input_min", "input_max", "input_mean", "input_range")
    )
    limits = domain((low - mean) / span, (high - mean) / span)
    share = np.random.default_rng(0).random((3, 5))
    x = inside(limits, limits.low + share * (limits.high - limits.low)).astype(np.float32)
    config = RiskConfig(Adversarial("argmin"), domain=limits, estimator="none", budget=1.0, workers=1)
    check(sutura.load(shared_data / "acasxu" / "onnx" / f"{stem}.onnx"), x, config)


def test_peers_find_nothing_within_digit_radii():
    sklearn = pytest.importorskip("sklearn.datasets")
    x, y = sklearn.load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimiser = torch.optim.Adam(layers.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(
            layers(torch.from_numpy(x[:1000])), torch.from_numpy(y[:1000])
        ).backward()
        optimiser.step()
    first, last = ([p.detach().numpy() for p in layers[i].parameters()] for i in (0, 2))
    net = chain((64,), ops.Gemm(*first, 1.0, 1.0, True), ops.Relu(), ops.Gemm(*last, 1.0, 1.0, True))
    check(net, x[1000:1004], RiskConfig(estimator="none"))
