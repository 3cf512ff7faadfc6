"""compress() as a whole: targets, methods, budgets, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compressible import chain, classifier, convolution, gemm, normal, samples

import sutura
from sutura.compression.budget import size
from sutura.compression.compress import compress, curve
from sutura.compression.layers import compressible
from sutura.compression.methods import METHODS
from sutura.compression.study import CompressConfig
from sutura.dataset import Dataset
from sutura.errors import CompressionError, DataError, NetworkError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.onnx_read import parse_onnx
from sutura.network.run import open_session, run


@pytest.mark.parametrize("method", ["portfolio", *METHODS])
def test_every_method_keeps_its_target_and_runs(method):
    network = classifier()
    data = samples(network, classes=5)
    made = compress(network, CompressConfig(target=0.5, method=method), data=data)
    assert made.before == size(network)
    assert made.after.params <= 0.505 * made.before.params
    assert made.after == size(parse_onnx(made.onnx, "classifier"))
    got = run(open_session(made.onnx), data.x)
    assert np.max(np.abs(got - evaluate(made.network, data.x.astype(np.float64)))) < 1e-4
    assert sum(choice.after for choice in made.choices) <= 0.5 * made.before.params
    assert made.loss >= 0.0


@pytest.mark.parametrize("kind", ["params", "macs", "bytes"])
def test_budgets_are_kept_and_used(kind):
    network = classifier()
    config = CompressConfig(budget=kind, method="whitened")
    for made in curve(network, [0.9, 0.6, 0.4], config, data=samples(network)):
        share = getattr(made.after, kind) / getattr(made.before, kind)
        assert made.target - 0.06 < share <= made.target


def test_latency_is_planned_from_measurements():
    network = chain((16, 12, 12), convolution(0, 64, 16), ops.Relu(), convolution(2, 64, 64))
    (made,) = curve(
        network, [0.9], CompressConfig(budget="latency", method="whitened"), data=samples(network, 9)
    )
    assert any(choice.split for choice in made.choices)
    assert made.after.macs < made.before.macs


def test_everything_is_kept_at_target_one():
    network = classifier()
    made = compress(network, CompressConfig(target=1.0), data=samples(network))
    assert made.after.params == made.before.params
    assert made.loss < 1e-8


def test_the_same_seed_gives_the_same_bytes():
    network = classifier()
    first, second = (compress(network, CompressConfig(seed=4), data=samples(network)) for _ in range(2))
    assert first.onnx == second.onnx


def test_portfolio_is_never_worse_than_its_methods_on_the_judging_samples():
    network, config = classifier(), CompressConfig(target=0.35)
    data = samples(network, 120)
    best = compress(network, config, data=data).loss
    for method in ("whitened", "whitened-minimax", "frobenius", "exact", "exact-reference"):
        plain = replace(config, method=method, finish=False)
        assert best <= compress(network, plain, data=data).loss


def test_without_samples_weights_decide():
    made = compress(classifier(), CompressConfig(target=0.5))
    assert (made.method, made.finish, made.loss) == ("frobenius", "as built", None)


def test_names_are_public():
    assert sutura.compress is compress
    assert sutura.CompressConfig is CompressConfig


@pytest.mark.parametrize("kind", ["params", "macs", "bytes"])
@pytest.mark.parametrize("method", ["frobenius", "alds", "svd", "l-rank"])
def test_unreachable_target_names_the_smallest_that_is_reachable(kind, method):
    network = classifier()
    with pytest.raises(CompressionError, match="the smallest reachable is 0") as caught:
        compress(network, CompressConfig(target=0.001, method=method, budget=kind))
    least = float(str(caught.value).rsplit(" ", 1)[1])
    made = compress(network, CompressConfig(target=least + 0.005, method=method, budget=kind))
    assert getattr(made.after, kind) <= (least + 0.006) * getattr(made.before, kind)


@pytest.mark.parametrize("target", [0.0, -1.0, 1.5, float("nan")])
def test_targets_that_are_no_shares(target):
    with pytest.raises(CompressionError, match="is no share"):
        compress(classifier(), CompressConfig(target=target))


def test_unknown_method_names_the_nearest():
    with pytest.raises(CompressionError, match="'whitened'"):
        compress(classifier(), CompressConfig(method="whitend"))


def test_methods_that_need_samples_or_time_say_so():
    with pytest.raises(CompressionError, match="calibration samples"):
        compress(classifier(), CompressConfig(method="pca"))
    with pytest.raises(CompressionError, match="measured time"):
        compress(classifier(), CompressConfig(method="alds", budget="latency"))


def test_layers_left_alone_are_told_with_the_reason():
    grouped = replace(convolution(0, 4, 1), group=4)
    moved = ops.Conv(np.eye(4, dtype=np.float32)[:, :, None, None], None, (1, 1), (0,) * 4, (1, 1))
    network = chain((4, 6, 6), grouped, moved, convolution(2, 6, 4), ops.Reshape((216,)), gemm(3, 3, 216))
    layers, left = compressible(network, keep=("gemm4",))
    assert [layer.name for layer in layers] == ["conv2"]
    assert [part.name for part in left] == ["conv0", "conv1", "gemm4"]
    assert [part.reason.split()[1] for part in left] == ["a", "moves", "asked"]
    assert "depthwise" in left[0].reason


def test_nothing_to_compress():
    with pytest.raises(NetworkError, match="no layer to compress: it has no weights"):
        compress(chain((4,), ops.Relu()))
    with pytest.raises(NetworkError, match=r"no layer to compress.*depthwise"):
        compress(chain((4, 6, 6), replace(convolution(0, 4, 1), group=4)))


def test_layers_that_do_not_exist():
    with pytest.raises(NetworkError, match="is called 'head'; it has 'conv0'"):
        compress(classifier(), CompressConfig(keep=("head",)))


def test_shared_weights():
    weight = normal(0, 6, 6)
    network = chain((6,), ops.MatMul(weight), ops.Relu(), ops.MatMul(weight))
    with pytest.raises(NetworkError, match="'matmul0' and 'matmul2' share one weight"):
        compress(network)


def test_shared_weights_of_a_file():
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 6]) for n in "xy"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(normal(0, 6, 6), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(NetworkError, match="'first' and 'second' share one weight"):
        compress(model.SerializeToString())


def test_weights_that_are_no_float32():
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["N", 6]) for n in "xy"]
    weight = numpy_helper.from_array(np.eye(6), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(NetworkError, match="float32"):
        compress(model.SerializeToString())


BAD_DATA = {
    "takes 4x8x8": normal(0, 20, 4, 8, 7),
    "NaN": np.where(normal(0, 20, 4, 8, 8) > 2, np.nan, np.float32(0)).astype(np.float32),
    "float32": normal(0, 20, 4, 8, 8).astype(np.float64),
    "at least 8": normal(0, 7, 4, 8, 8),
}


@pytest.mark.parametrize("words", BAD_DATA)
def test_calibration_data_that_do_not_fit(words):
    with pytest.raises(DataError, match=words):
        compress(classifier(), data=Dataset("bad.npz", BAD_DATA[words], None))


def test_labels_that_are_no_classes():
    network = classifier()
    with pytest.raises(DataError, match="label 5 is no class"):
        compress(network, data=replace(samples(network), y=np.full(48, 5)))
