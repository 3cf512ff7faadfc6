"""The exact bytes that are written, and the names in them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import mlp, model, node, numbers

from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network, Node
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import network_nodes, to_model, write_onnx
from sutura.network.run import open_session, run
from sutura.network.selfcheck import against_runtime
from sutura.network.shapes import output_shape


def chain(*steps, start=(2,), name="tiny", source="in"):
    """A network of operators one after the other, each (value name, op)."""
    shapes, nodes, value = {source: start}, [], source
    for output, op in steps:
        nodes.append(Node(output, op, (value,), output))
        shapes[output] = output_shape(op, (shapes[value],))
        value = output
    return Network(name, source, value, tuple(nodes), MappingProxyType(shapes), "")


def tiny():
    weight = np.array([[1, 2], [3, 4]], np.float32)
    return chain(
        ("a", ops.MatMul(weight)),
        ("b", ops.AddConstant(np.array([0.5, -1], np.float32))),
        ("out", ops.Relu()),
    )


def test_bytes_are_pinned():
    data = write_onnx(tiny())
    assert data == write_onnx(tiny())
    assert len(data) == TINY_LENGTH
    assert hashlib.sha256(data).hexdigest() == TINY_SHA256


def test_bytes_do_not_depend_on_the_process():
    script = (
        "import sys; sys.path.insert(0, 'tests/network'); from onnx_models import mlp; import hashlib;"
        "from sutura.network import parse_onnx, write_onnx;"
        "sys.stdout.write(hashlib.sha256(write_onnx(parse_onnx(mlp(), 'm'))).hexdigest())"
    )
    own = hashlib.sha256(write_onnx(parse_onnx(mlp(), "m"))).hexdigest()
    root = __file__.rsplit("/tests/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PYTHONHASHSEED": "7"},
    )
    assert done.stdout == own


def test_envelope():
    written = to_model(tiny())
    assert (written.ir_version, written.producer_name) == (10, "sutura")
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 17)]
    ends = [*written.graph.input, *written.graph.output]
    assert [v.name for v in ends] == ["in", "out"]
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in ends] == ["N", "N"]
    onnx.checker.check_model(written, full_check=True)


def test_one_node_a_node_and_weights_as_stored():
    network = tiny()
    nodes, tensors = network_nodes(network)
    assert [n.op_type for n in nodes] == ["MatMul", "Add", "Relu"]
    assert [list(n.input) for n in nodes] == [["in", "a.weight"], ["a", "b.value"], ["b"]]
    assert [t.name for t in tensors] == ["a.weight", "b.value"]
    assert tensors[0].raw_data == network.nodes[0].op.weight.tobytes()


def test_names_are_distinct_and_never_reserved():
    relu = ops.Relu()
    add = ops.AddConstant(np.ones(2, np.float32))
    network = chain(
        ("sutura.gate", add), ("network.sutura.gate", add), ("sutura.gate.value", relu), source="sutura.x"
    )
    written = to_model(network)
    names = [*(t.name for t in written.graph.initializer), *(o for n in written.graph.node for o in n.output)]
    names += [written.graph.input[0].name]
    labels = [n.name for n in written.graph.node]
    assert len(set(names)) == len(names) == 6
    assert len(set(labels)) == 3
    assert not any(name.startswith("sutura.") for name in (*names, *labels))
    assert run(open_session(write_onnx(network)), np.zeros((1, 2), np.float32)).tolist() == [[2.0, 2.0]]


def test_ordinary_names_are_kept_beside_reserved_ones():
    network = chain(("a", ops.Relu()), ("sutura.b", ops.Relu()), ("out", ops.Relu()))
    graph = to_model(network).graph
    assert [n.output[0] for n in graph.node] == ["a", "network.sutura.b", "out"]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_runs(batch):
    data = model(
        [node("Reshape", "x t", "r"), node("Transpose", "r", "s", perm=[0, 2, 1]), node("Flatten", "s", "y")],
        {"t": np.array([1, 2, 3], np.int64)},
        shape=(1, 6),
    )
    session = open_session(write_onnx(parse_onnx(data, "m")))
    x = numbers(batch, 6)
    assert run(session, x).tolist() == x.reshape(batch, 2, 3).transpose(0, 2, 1).reshape(batch, 6).tolist()


def operators(shape):
    """Operators that fit a sample shape, with small random weights."""
    seed = st.integers(0, 99)
    last, rank = shape[-1], len(shape)
    choices = [
        st.sampled_from([ops.Relu(), ops.Tanh(), ops.Sigmoid(), ops.LeakyRelu(0.125), ops.Clip(-0.5, 0.75)]),
        seed.map(lambda s: ops.AddConstant(numbers(last, seed=s))),
        seed.map(lambda s: ops.SubtractConstant(numbers(*shape, seed=s), reversed=bool(s % 2))),
        seed.map(lambda s: ops.MultiplyConstant(numbers(*(1,) * rank, seed=s))),
        seed.map(lambda s: ops.DivideConstant(np.abs(numbers(last, seed=s)) + np.float32(0.5))),
        seed.map(lambda s: ops.MatMul(numbers(last, s % 4 + 1, seed=s))),
        st.permutations(range(rank)).map(lambda p: ops.Transpose(tuple(p))),
        st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank).map(
            lambda p: ops.Pad(tuple(p), 0.5)
        ),
        st.lists(st.integers(0, last - 1), min_size=1, max_size=4).map(
            lambda i: ops.Take(rank - 1, np.array(i, np.int64))
        ),
        st.just(ops.Reshape((int(np.prod(shape)),))),
        st.just(ops.Reshape((*shape, 1))),
    ]
    if rank in (2, 3):
        spatial = rank - 1
        one, none = (1,) * spatial, (0,) * (2 * spatial)
        choices += [
            seed.map(lambda s: ops.Conv(numbers(3, shape[0], *one, seed=s), None, one, none, one)),
            seed.map(
                lambda s: ops.Conv(
                    numbers(2, shape[0], *one, seed=s), numbers(2), one, (1,) * 2 * spatial, one
                )
            ),
            st.just(ops.AveragePool((2,) * spatial, one, (1,) * 2 * spatial)),
            st.just(ops.MaxPool((2,) * spatial, one, (1,) * 2 * spatial, one)),
            st.just(ops.GlobalAveragePool()),
        ]
    return st.one_of(choices)


@st.composite
def networks(draw):
    """Random graphs: each node reads the last value, or adds two earlier values of one shape."""
    shapes = {"x": tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))}
    nodes = []
    for index in range(draw(st.integers(1, 6))):
        name, last = f"v{index}", list(shapes)[-1]
        twins = [k for k, v in shapes.items() if v == shapes[last]]
        if draw(st.integers(0, 3)) == 0:
            other = draw(st.sampled_from(twins))
            op = draw(st.sampled_from([ops.Add(), ops.Subtract(), ops.Concat(0)]))
            inputs = (last, other)
        else:
            op, inputs = draw(operators(shapes[last]).filter(lambda o, s=shapes[last]: _small(o, s))), (last,)
        nodes.append(Node(name, op, inputs, name))
        shapes[name] = output_shape(op, tuple(shapes[i] for i in inputs))
    return Network("random", "x", nodes[-1].output, tuple(nodes), MappingProxyType(shapes), "")


def _small(op, shape):
    result = output_shape(op, (shape,))
    return len(result) < 6 and np.prod(result) < 300


@settings(max_examples=120, deadline=None)
@given(networks())
def test_random_networks_survive_writing_and_reading(network):
    data = write_onnx(network)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    again = parse_onnx(data, "random")
    x = numbers(2, *network.input_shape)
    assert run(open_session(write_onnx(again)), x).tobytes() == run(open_session(data), x).tobytes()
    exact = evaluate(network, x.astype(np.float64))
    assert np.array_equal(evaluate(again, x.astype(np.float64)), exact)
    assert against_runtime(network, data, samples=4) < 1e-2


TINY_LENGTH = 209
TINY_SHA256 = "c8c5256b4a9fe424d89c05cfe09a59cd87a6bf0775994d5aaf07922c4a6c29d7"
