"""Files of every kind through the front door, and the check against ONNX Runtime behind it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from onnx_models import mlp, model, node, numbers

from sutura.errors import MismatchError, NetworkError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load, read_network
from sutura.network.run import open_session, run
from sutura.network.selfcheck import against_runtime


def swapped(network, index, **changes):
    """The network with fields of one operator changed, as a wrong reading would have it."""
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], op=replace(nodes[index].op, **changes))
    return replace(network, nodes=tuple(nodes))


def test_load_from_path_text_and_bytes(tmp_path):
    path = tmp_path / "Net.ONNX"
    path.write_bytes(mlp())
    for source in (path, str(path), mlp()):
        loaded = load(source)
        assert loaded.original == mlp()
        assert loaded.network.sha256 == hashlib.sha256(mlp()).hexdigest()
        assert 0 < loaded.difference < 1e-5
    assert read_network(path).name == "Net.ONNX"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".PT", ".ckpt"])
def test_pickles_are_never_opened(tmp_path, suffix):
    with pytest.raises(NetworkError, match=r"never opened.*torch\.onnx\.export"):
        load(tmp_path / f"absent{suffix}")


@pytest.mark.parametrize("name", ["net.txt", "net", "net.onnx.gz"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(NetworkError, match=r"\.nnet and \.onnx"):
        load(tmp_path / name)


def test_check_passes_on_an_honest_reading():
    network = parse_onnx(mlp(), "m")
    assert against_runtime(network, mlp()) == against_runtime(network, mlp())
    assert against_runtime(network, None) <= against_runtime(network, mlp())


MISREADINGS = {
    "scale": (3, {"alpha": 1.0001}),
    "bias": (3, {"beta": 0.999}),
    "weight": (0, {"weight": numbers(4, 3) * np.float32(1.0001)}),
}


@pytest.mark.parametrize("name", MISREADINGS)
def test_check_refuses_a_misreading(name):
    index, changes = MISREADINGS[name]
    network = parse_onnx(mlp(), "m")
    with pytest.raises(NetworkError, match="as it came differs"):
        against_runtime(swapped(network, index, **changes), mlp())


def test_check_refuses_a_wrong_epsilon():
    weights = {"k": np.ones(2, np.float32), "z": np.zeros(2, np.float32)}
    data = model([node("BatchNormalization", "x k z z k", "y", epsilon=1e-3)], weights, shape=("N", 2, 3))
    network = parse_onnx(data, "m")
    against_runtime(network, data)
    with pytest.raises(NetworkError, match="differs"):
        against_runtime(swapped(network, 0, epsilon=1e-5), data)


def test_check_refuses_overflow():
    data = model([node("Mul", "x k", "a"), node("Mul", "a k", "y")], {"k": np.float32(3e38)})
    with pytest.raises(NetworkError, match="overflows"):
        load(data)


def test_fixed_batch_files_run_one_by_one():
    data = model([node("Relu", "x", "y")], shape=(1, 4), output=[1, 4])
    session = open_session(data)
    x = numbers(3, 4)
    assert session.single
    assert run(session, x).tolist() == np.maximum(x, 0).tolist()


@pytest.mark.parametrize(
    "x",
    [np.zeros((2, 5), np.float32), np.zeros((2, 4)), np.zeros(4, np.float32), np.zeros((0, 4), np.float32)],
    ids=["size", "double", "no_batch", "empty"],
)
def test_run_refuses_other_inputs(x):
    with pytest.raises(MismatchError, match="batches of 4"):
        run(open_session(mlp()), x)


def test_evaluate_refuses_other_shapes():
    with pytest.raises(MismatchError, match="batch of 4"):
        evaluate(parse_onnx(mlp(), "m"), np.zeros((2, 5)))


def test_runtime_refusals_are_ours():
    # A type that ONNX Runtime refuses, and that only its own check can see.
    data = model([node("Sub", "x k", "y")], {"k": np.ones(4, np.int64)})
    with pytest.raises(NetworkError, match="ONNX Runtime does not load"):
        open_session(data)


def test_subgraphs_never_reach_the_runtime():
    body = helper.make_graph([node("Relu", "x", "b")], "b", [], [helper.make_tensor_value_info("b", 1, None)])
    nodes = [helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body)]
    with pytest.raises(NetworkError, match=r"node 'if' \(If\) has an attribute that is not run"):
        open_session(model(nodes, {"c": np.array(True)}))


def test_evaluation_does_not_change_its_input():
    network, x = parse_onnx(mlp(), "m"), np.ones((2, 4))
    evaluate(network, x)
    assert (x == 1).all()
    assert isinstance(network.nodes[0].op, ops.MatMul)
    assert not network.nodes[0].op.weight.flags.writeable


def test_importing_the_room_imports_neither_onnx_nor_its_runtime():
    heavy = "('onnx', 'onnxruntime', 'torch')"
    script = f"import sys, sutura.network; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_package_exports_resolve():
    import sutura.network

    for name in sutura.network.__all__:
        assert getattr(sutura.network, name) is not None
    with pytest.raises(AttributeError):
        _ = sutura.network.absent
    assert sutura.network.write_onnx is write_onnx
