"""diff(): both sides of the difference, decisions, and what does not fit."""

from __future__ import annotations

import json
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest
from click.testing import CliRunner

from sutura.cli.app import main
from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.property.build import box, output_bound
from sutura.verdict.difference import DiffConfig, diff

LITTLE = DiffConfig(boxes=200, samples=500)


def mlp(*weights):
    """Loaded network of the weights with ReLU between them."""
    nodes, shapes, value = [], {"x": (len(weights[0]),)}, "x"
    for at, weight in enumerate(weights):
        nodes.append(Node(f"m{at}", ops.MatMul(np.asarray(weight, np.float32)), (value,), f"m{at}"))
        value = f"m{at}"
        shapes[value] = (len(weight[0]),)
        if at < len(weights) - 1:
            nodes.append(Node(f"r{at}", ops.Relu(), (value,), f"r{at}"))
            value, shapes[f"r{at}"] = f"r{at}", shapes[value]
    return load(write_onnx(Network("mlp", "x", value, tuple(nodes), MappingProxyType(shapes), "")))


def region(inputs, outputs, low=-1.0, high=1.0):
    return output_bound(box([low] * inputs, [high] * inputs), 0, upper=0, outputs=outputs)


def weights(seed, *sizes):
    random = np.random.default_rng(seed)
    return [random.normal(size=pair).astype(np.float32) / np.sqrt(pair[0]) for pair in pairwise(sizes)]


def test_bounds_hold_what_was_seen_and_are_tighter_than_apart():
    layers = weights(0, 3, 24, 24, 2)
    other = [w * np.float32(1.001) for w in layers]
    found = diff(mlp(*layers), mlp(*other), region(3, 2), LITTLE)
    assert (found.low <= found.attained[0]).all()
    assert (found.attained[1] <= found.high).all()
    assert found.largest_seen <= found.largest < 0.2 * abs(np.array(found.separate)).max()
    assert found.boxes <= 2 * 200


def test_witnesses_replay():
    first, second = mlp(*weights(0, 2, 8, 3)), mlp(*weights(1, 2, 8, 3))
    found = diff(first, second, region(2, 3), LITTLE)
    assert found.decides_alike is False
    assert found.changed is not None
    for seen in (found.widest, found.changed):
        assert (abs(seen.input) <= 1).all()
        for loaded, told in ((first, seen.first), (second, seen.second)):
            assert loaded.original is not None
            assert np.array_equal(run(open_session(loaded.original), seen.input[None])[0], told)
    assert found.changed.first.argmax() != found.changed.second.argmax()
    apart = abs(found.widest.first.astype(np.float64) - found.widest.second).max()
    assert apart == found.largest_seen


def test_a_border_between_decisions_finds_the_smallest_move_of_it():
    # Decisions change at x = 0 and at x = 2^-12: far too little for random points to fall between.
    first, second = mlp([[1.0, 0.0]]), mlp([[1.0, 0.0], [-(2.0**-12), 0.0]])
    wide = mlp([[1.0, 0.0], [0.0, 0.0]])
    where = output_bound(box([-1.0, 1.0], [1.0, 1.0]), 0, upper=0, outputs=2)
    found = diff(wide, second, where, DiffConfig(boxes=50, samples=200))
    assert found.decides_alike is False
    assert found.largest == pytest.approx(2.0**-12, rel=1e-2)
    alone = diff(first, first, region(1, 2), DiffConfig(boxes=50, samples=200))
    assert alone.changed is None


def test_decisions_are_proved_alike_where_they_are():
    # Scores 2 and x, then 2.1 and x: the first leads on all of [-1, 1].
    first, second = mlp([[0.0, 1.0], [2.0, 0.0]]), mlp([[0.0, 1.0], [2.1, 0.0]])
    where = output_bound(box([-1.0, 1.0], [1.0, 1.0]), 0, upper=0, outputs=2)
    most = diff(first, second, where, LITTLE)
    assert most.decides_alike is True
    assert most.same_share == 1.0
    least = diff(first, second, where, DiffConfig(boxes=200, samples=500, decision="argmin"))
    assert least.decides_alike is True


def test_ties_are_never_proved():
    network = mlp([[1.0, 1.0]])
    found = diff(network, network, region(1, 2), LITTLE)
    assert found.decides_alike is None
    assert found.largest < 1e-6


def test_a_spent_time_limit_still_gives_sound_bounds():
    layers = weights(0, 3, 24, 24, 2)
    found = diff(mlp(*layers), mlp(*weights(1, 3, 24, 24, 2)), region(3, 2), DiffConfig(timeout=1e-9))
    assert found.largest >= found.largest_seen
    assert found.same_share < 1.0


@pytest.mark.parametrize(
    ("second", "where", "told"),
    [
        (mlp(*weights(0, 3, 4, 2)), region(2, 2), "2 inputs and mlp_b has 3"),
        (mlp(*weights(0, 2, 4, 3)), region(2, 2), "2 outputs"),
        (mlp(*weights(0, 2, 4, 2)), region(4, 2), "has 4 inputs"),
    ],
    ids=["inputs", "outputs", "region"],
)
def test_what_does_not_fit_is_refused(second, where, told):
    with pytest.raises(MismatchError) as caught:
        diff(mlp(*weights(0, 2, 4, 2)), second, where)
    assert told.split(" and ")[0] in str(caught.value)


def test_the_command_answers_with_its_exit_code(tmp_path):
    layers = weights(0, 2, 6, 2)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(mlp(*layers).original or b"")
    second.write_bytes(mlp(*(w * np.float32(1.01) for w in layers)).original or b"")
    where = tmp_path / "r.vnnlib"
    where.write_bytes(region(2, 2).text)

    def say(*more):
        options = ["--region", str(where), "--boxes", "100", "--samples", "300", *more]
        return CliRunner().invoke(main, ["diff", str(first), str(second), *options])

    told = json.loads(say("--json").stdout)
    assert told["schema"] == "sutura/diff"
    certified, seen = told["largest"]["certified"], told["largest"]["seen"]
    assert 0 < seen <= certified
    assert say().exit_code == 0
    assert say("--at-most", str(certified * 1.001)).exit_code == 0
    assert say("--at-most", str(seen / 2)).exit_code == 1
    if seen * 1.0001 < certified:
        assert say("--at-most", str((seen + certified) / 2)).exit_code == 3
    missing = CliRunner().invoke(main, ["diff", str(first), str(second), "--region", "none.vnnlib"])
    assert missing.exit_code == 2
