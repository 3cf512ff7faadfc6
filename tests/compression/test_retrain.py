"""Retraining with rewound learning rates, and the cascade; skipped where torch is not installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compressible import chain, classifier, convolution, gemm, normal, samples

torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")

from sutura.compression.compress import compress  # noqa: E402
from sutura.compression.factors import substitute, truncated  # noqa: E402
from sutura.compression.folding import SCHEMES, Split  # noqa: E402
from sutura.compression.layers import compressible  # noqa: E402
from sutura.compression.retrain import RetrainConfig, cascade, retrain, rewound, whole_again  # noqa: E402
from sutura.compression.study import CompressConfig  # noqa: E402
from sutura.dataset import Dataset  # noqa: E402
from sutura.errors import CompressionError, NetworkError  # noqa: E402
from sutura.network import ops  # noqa: E402
from sutura.network.evaluate import evaluate  # noqa: E402
from sutura.network.torch_weights import with_weights  # noqa: E402
from sutura.network.torch_write import to_module  # noqa: E402
from sutura.training.config import TrainConfig, schedule_of  # noqa: E402

TRAINING = TrainConfig(epochs=40, batch=16, rate=0.01, optimiser="sgd", momentum=0.9, schedule="linear")


def task():
    """A network and samples with its own decisions for labels."""
    network = classifier()
    data = samples(network, 96)
    y = evaluate(network, data.x.astype(np.float64)).argmax(axis=1)
    return network, Dataset("own", data.x, y.astype(np.int64))


def right(network, data):
    return np.mean(evaluate(network, data.x.astype(np.float64)).argmax(axis=1) == data.y)


def test_rates_are_those_of_the_last_epochs():
    whole = replace(TRAINING, schedule="steps")
    short = rewound(RetrainConfig(whole, 0.3))
    assert short.epochs == 12
    before, after = schedule_of(whole), schedule_of(short)
    for epoch in range(12):
        assert after(epoch / 12) == pytest.approx(before((28 + epoch) / 40))
    assert rewound(RetrainConfig(whole, 1.0)).epochs == 40
    assert rewound(RetrainConfig(whole, 0.001)).epochs == 1
    for share in (0.0, 1.1):
        with pytest.raises(CompressionError, match="share"):
            rewound(RetrainConfig(whole, share))


def test_retraining_brings_accuracy_back_and_keeps_the_size():
    network, data = task()
    made = compress(network, CompressConfig(target=0.3, method="alds"))
    again = retrain(made, data, RetrainConfig(TRAINING, 0.5))
    assert again.after == made.after
    assert again.finish == "as built, retrained for 20 epochs"
    assert right(again.network, data) > right(made.network, data) + 0.1


def test_cascade_splits_whole_layers():
    network, data = task()
    made = cascade(network, [0.6, 0.3], data, CompressConfig(method="exact"), RetrainConfig(TRAINING, 0.25))
    assert made.after.params <= 0.3 * made.before.params
    assert all(node.name.count("encoder") < 2 for node in made.network.nodes)
    once = compress(network, CompressConfig(target=0.3, method="exact"))
    assert right(made.network, data) > right(once.network, data)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_splits_multiplied_out_compute_the_same(scheme):
    network = chain((4, 6, 6), convolution(0, 6, 4, strides=(2, 1)), ops.Reshape((108,)), gemm(3, 5, 108))
    made = compress(network, CompressConfig(target=1.0))
    layers, _ = compressible(network)
    splits = [Split(scheme, 2, 2), Split(0, 3, 2)]
    parts = {layer.key: truncated(layer, split) for layer, split in zip(layers, splits, strict=True)}
    thin = substitute(network, {layer.key: layer for layer in layers}, parts)
    choices = tuple(replace(c, split=s) for c, s in zip(made.choices, splits, strict=True))
    whole = whole_again(network, replace(made, network=thin, choices=choices))
    x = normal(5, 3, 4, 6, 6).astype(np.float64)
    assert np.max(np.abs(evaluate(whole, x) - evaluate(thin, x))) < 1e-5
    assert [node.name for node in whole.nodes] == [node.name for node in network.nodes]


def test_weights_come_back_from_the_module():
    network = chain(
        (4, 6, 6), ops.SubtractConstant(normal(0, 4, 1, 1)), convolution(1, 6, 4, pads=(0, 1, 1, 2)),
        ops.BatchNormalization(*(np.abs(normal(s, 6)) for s in (2, 3, 4, 5)), 1e-5), ops.Reshape((210,)),
        ops.MatMul(normal(6, 210, 7)), ops.AddConstant(normal(7, 7)),
        ops.Gemm(normal(8, 7, 3), normal(9, 1), alpha=0.5),
    )  # fmt: skip
    module = to_module(network)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.copy_(1.5 * tensor)
    x = normal(10, 3, 4, 6, 6)
    again = with_weights(network, module)
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    assert np.max(np.abs(evaluate(again, x.astype(np.float64)) - expected)) < 1e-2
    assert again.sha256 != network.sha256
    assert with_weights(network, to_module(network)).nodes[1].op.weight.tobytes() == (
        network.nodes[1].op.weight.tobytes()
    )


def test_weights_of_another_module_are_refused():
    with pytest.raises(NetworkError, match="has no layer"):
        with_weights(classifier(), to_module(chain((3,), gemm(0, 2, 3))))
