"""Merging: exact where neurons coincide, within its bound elsewhere, and refused in one line."""

from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.cli.app import main
from sutura.condensation.bound import merge_bound
from sutura.condensation.condense import CondenseConfig, condense
from sutura.condensation.groups import Cloud, cut, hierarchy
from sutura.condensation.merge import merge, plan
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.network.shapes import output_shape
from sutura.property.build import box, output_bound
from sutura.verdict.difference import DiffConfig


def chain(start, *operators):
    """A network of operators one after the other."""
    shapes, nodes, value = {"x": start}, [], "x"
    for at, op in enumerate(operators):
        nodes.append(Node(f"n{at}", op, (value,), f"v{at}"))
        shapes[f"v{at}"] = output_shape(op, (shapes[value],))
        value = f"v{at}"
    return Network("net", "x", value, tuple(nodes), MappingProxyType(shapes), "")


def single(values):
    return np.asarray(values, np.float32)


def gemm(weight, bias=None):
    return ops.Gemm(single(weight), None if bias is None else single(bias))


ACTIVATIONS = {
    "relu": ops.Relu(),
    "leaky": ops.LeakyRelu(0.125),
    "absolute": ops.LeakyRelu(-1.0),
    "tanh": ops.Tanh(),
    "sigmoid": ops.Sigmoid(),
}
EXACT = {"relu": (0.5, 2.0, 7.0), "leaky": (0.5, 4.0, 1.0), "absolute": (0.5, -2.0, 7.0)}
EXACT |= {"tanh": (1.0, 1.0, -1.0), "sigmoid": (1.0, -1.0, -1.0)}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_coinciding_neurons_merge_exactly(name):
    random = np.random.default_rng(0)
    line, other = random.normal(size=(2, 4))
    incoming = np.array([*(line * r for r in EXACT[name]), other])
    rows, outgoing = single(incoming), random.normal(size=(4, 3))
    network = chain(
        (3,), gemm(rows[:, :3].T, rows[:, 3]), ACTIVATIONS[name], gemm(outgoing, random.normal(size=3))
    )
    merged = merge(plan(network), 2)
    x = random.normal(size=(100, 3))
    assert merged.layers[0].after == 2
    assert abs(evaluate(merged.network, x) - evaluate(network, x)).max() < 1e-5
    load(write_onnx(merged.network))


def test_merging_by_hand():
    # relu(x) + 3 relu(2x) = 7 relu(x); -relu(-x) keeps its own neuron.
    network = chain((1,), gemm([[1.0, 2.0, -1.0]]), ops.Relu(), gemm([[1.0], [3.0], [-1.0]]))
    merged = merge(plan(network), 2).network
    weights = [node.op.weight.tolist() for node in merged.nodes if isinstance(node.op, ops.Gemm)]
    assert weights == [[[1.0], [-1.0]], [[7.0], [-1.0]]]


def test_ward_joins_the_cheapest_pair_first():
    points = np.array([[0.0], [1.0], [10.0], [10.5]])
    merges = hierarchy(Cloud(points, np.array([1.0, 1.0, 1.0, 3.0])))
    # 1*3/4 * 0.25 and 1*1/2 * 1.
    assert merges.cost[:2] == pytest.approx([0.1875, 0.5])
    assert cut(merges, 2).group.tolist() == [0, 0, 1, 1]
    assert cut(merges, 3).group.tolist() == [0, 1, 2, 2]
    assert cut(merges, 4).group.tolist() == [0, 1, 2, 3]


def test_negatives_are_joined_where_allowed():
    points = np.array([[1.0, 0.0], [-1.0, 0.01], [0.0, 1.0]])
    groups = cut(hierarchy(Cloud(points, np.ones(3), flips=True)), 2)
    assert groups.group.tolist() == [0, 0, 1]
    assert groups.sign[0] == -groups.sign[1]
    assert cut(hierarchy(Cloud(points, np.ones(3))), 2).group.tolist() != [0, 0, 1]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.floats(0.05, 1.0),
    st.booleans(),
)
def test_no_input_moves_an_output_by_more_than_the_bound(seed, first, second, share, conv):
    random = np.random.default_rng(seed)
    if conv:
        network = chain(
            (2, 5, 5),
            ops.Conv(
                single(random.normal(size=(6, 2, 3, 3))),
                single(random.normal(size=6)),
                (2, 1),
                (1,) * 4,
                (1, 1),
            ),
            ACTIVATIONS[first],
            ops.MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1)),
            ops.Conv(single(random.normal(size=(5, 6, 2, 2))), None, (1, 1), (0,) * 4, (1, 1)),
            ACTIVATIONS[second],
            ops.Reshape((5 * 1 * 3,)),
            gemm(random.normal(size=(15, 2))),
        )
    else:
        network = chain(
            (3,),
            ops.MatMul(single(random.normal(size=(3, 9)))),
            ops.AddConstant(single(random.normal(size=9))),
            ACTIVATIONS[first],
            gemm(random.normal(size=(9, 7)), random.normal(size=7)),
            ACTIVATIONS[second],
            gemm(random.normal(size=(7, 2)), random.normal(size=2)),
        )
    planned = plan(network)
    merged = merge(planned, max(planned.least, round(share * planned.neurons)))
    low, high = np.full(network.input_size, -1.0), np.full(network.input_size, 2.0)
    x = low + random.random((200, network.input_size)) * (high - low)
    x[:100] = np.where(random.random((100, network.input_size)) < 0.5, low, high)
    shaped = x.reshape(len(x), *network.input_shape)
    moved = abs(evaluate(merged.network, shaped) - evaluate(network, shaped))
    bound = merge_bound(merged, low, high)
    assert (moved.max(axis=0) <= bound + 1e-12).all()
    if merged.kept == planned.neurons:
        assert not merged.steps
        assert bound.max() == 0.0


def test_the_certified_difference_is_within_the_bound_and_above_what_is_seen():
    random = np.random.default_rng(3)
    directions = random.normal(size=(4, 3))
    incoming = np.repeat(directions, 5, axis=0) + 0.01 * random.normal(size=(20, 3))
    network = chain(
        (2,), gemm(incoming[:, :2].T, incoming[:, 2]), ops.Relu(), gemm(random.normal(size=(20, 2)))
    )
    where = output_bound(box([-1.0, -1.0], [1.0, 1.0]), 0, upper=0, outputs=2)
    how = CondenseConfig(keep=0.2, region=where, difference=DiffConfig(boxes=200, samples=500))
    found = condense(load(write_onnx(network)), how)
    assert found.bound is not None
    assert found.difference is not None
    assert found.difference.largest_seen <= found.difference.largest
    assert found.difference.largest_seen <= found.bound.max()
    within = condense(
        load(write_onnx(network)),
        CondenseConfig(at_most=found.difference.largest * 1.01, region=where, difference=how.difference),
    )
    assert within.merged is not None
    assert within.difference is not None
    assert within.merged.kept <= 4
    assert within.difference.largest <= found.difference.largest * 1.01


def test_residual_branches_and_groups_are_left_alone():
    weight = single(np.eye(4))
    shapes = dict.fromkeys("xabcd", (4,))
    nodes = (
        Node("a", ops.MatMul(weight), ("x",), "a"),
        Node("b", ops.Relu(), ("a",), "b"),
        Node("c", ops.MatMul(weight), ("b",), "c"),
        Node("d", ops.Add(), ("c", "b"), "d"),
    )
    with pytest.raises(NetworkError, match="no layer whose neurons can be merged"):
        plan(Network("residual", "x", "d", nodes, MappingProxyType(shapes), ""))
    grouped = ops.Conv(single(np.ones((2, 1, 1, 1))), None, (1, 1), (0,) * 4, (1, 1), group=2)
    last = ops.Conv(single(np.ones((1, 2, 1, 1))), None, (1, 1), (0,) * 4, (1, 1))
    with pytest.raises(NetworkError):
        plan(chain((2, 3, 3), grouped, ops.Relu(), last))


def test_the_command_measures_merges_and_refuses(tmp_path):
    random = np.random.default_rng(0)
    directions = random.normal(size=(6, 4))
    incoming = np.repeat(directions, 4, axis=0) * random.random((24, 1))
    network = chain((4,), gemm(incoming.T), ops.Relu(), gemm(random.normal(size=(24, 3))))
    place, small, picture = tmp_path / "net.onnx", tmp_path / "small.onnx", tmp_path / "map.png"
    place.write_bytes(write_onnx(network))
    x = random.normal(size=(50, 4)).astype(np.float32)
    y = run(open_session(place.read_bytes()), x).argmax(axis=1)
    np.savez(tmp_path / "d.npz", x=x, y=y)

    def say(*more):
        return CliRunner().invoke(main, ["condense", str(place), *map(str, more)])

    told = json.loads(say("--json").stdout)
    assert told["schema"] == "sutura/condense"
    assert told["layers"][0]["counts"][0]["lines"] == 6
    made = say("--lose", "0", "--data", tmp_path / "d.npz", "-o", small, "--plot", picture)
    assert made.exit_code == 0, made.stderr
    assert picture.read_bytes()[:4] == b"\x89PNG"
    smaller = run(open_session(small.read_bytes()), x)
    assert (smaller.argmax(axis=1) == y).all()
    assert load(small).network.shapes["v0"] in {(n,) for n in range(1, 7)}
    for wrong, told in (
        (("--merge", "0.5"), "go together"),
        (("-o", small), "go together"),
        (("--merge", "0", "-o", small), "above 0"),
        (("--merge", "0.5", "--lose", "1", "-o", small), "one target"),
        (("--lose", "1", "-o", small), "--data"),
        (("--at-most", "1", "-o", small), "--region"),
        (("--merge", "0.5", "-o", tmp_path / "small.txt"), ".onnx"),
    ):
        result = say(*wrong)
        assert result.exit_code == 2, wrong
        assert told in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
