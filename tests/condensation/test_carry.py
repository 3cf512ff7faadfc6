"""Proofs that carry over from a merged network to the original."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from test_merge import chain, gemm

from sutura.cli.app import main
from sutura.condensation.carry import carried, carry
from sutura.condensation.merge import merge, plan
from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.property.build import argmax_in, box
from sutura.property.read import read_property
from sutura.property.spec import Case, Inequality, Property
from sutura.property.write import write
from sutura.verdict.difference import diff
from sutura.verdict.outcome import Proved, Violated
from sutura.verdict.verify import verify

RANDOM = np.random.default_rng(5)
LINES = RANDOM.normal(size=(3, 2))
WEIGHTS = np.concatenate([LINES + 0.01 * RANDOM.normal(size=LINES.shape) for _ in range(4)])
NETWORK = chain(
    (2,), gemm(WEIGHTS.T), ops.Relu(), gemm(RANDOM.normal(size=(12, 2)), [6.0, 0.0])
)  # twelve neurons near three lines
REGION = argmax_in(box([-0.5, -0.5], [0.5, 0.5]), [0], outputs=2)


def pair():
    original = load(write_onnx(NETWORK))
    return original, load(write_onnx(merge(plan(original.network), 3).network))


def test_unsafe_outputs_are_widened_by_what_merging_can_do():
    original, merged = pair()
    found = replace(diff(original, merged, REGION), low=np.array([-1.0, 0.0]), high=np.array([2.0, 0.5]))
    (unsafe,) = REGION.cases[0].unsafe
    (wide,) = carried(REGION, found).cases[0].unsafe
    assert unsafe[0].terms == wide[0].terms == ((0, Fraction(1)), (1, Fraction(-1)))
    assert wide[0].bound == Fraction(3, 2)


def test_a_proof_on_the_merged_network_is_one_of_the_original(tmp_path):
    original, merged = pair()
    found = diff(original, merged, REGION)
    assert 0 < found.largest < 1
    widened = carried(REGION, found)
    (tmp_path / "wide.vnnlib").write_bytes(widened.text)
    assert read_property(tmp_path / "wide.vnnlib").cases == widened.cases
    assert isinstance(verify(merged, widened).verdict, Proved)
    assert isinstance(verify(original, REGION).verdict, Proved)
    outputs = evaluate(NETWORK, RANDOM.uniform(-0.5, 0.5, size=(2000, 2)).astype(np.float32))
    assert (outputs.argmax(axis=1) == 0).all()


def test_differences_that_do_not_fit_are_refused():
    original, merged = pair()
    found = diff(original, merged, REGION)
    with pytest.raises(MismatchError, match="has 2 outputs; the difference bounds 1"):
        carried(REGION, replace(found, low=found.low[:1], high=found.high[:1]))
    with pytest.raises(MismatchError, match="not bounded"):
        carried(REGION, replace(found, high=np.array([1.0, np.inf])))


def test_carry_says_what_is_known_of_both_networks():
    original, merged = pair()
    over = carry(original, merged, REGION)
    assert over.over
    assert over.difference is not None
    assert isinstance(over.merged.verdict, Proved)
    against = argmax_in(box([-0.5, -0.5], [0.5, 0.5]), [1], outputs=2)
    found = carry(original, merged, against)
    assert isinstance(found.merged.verdict, Violated)
    assert (found.over, found.difference, found.widened) == (False, None, None)


def test_a_margin_smaller_than_the_difference_carries_nothing_over():
    """y_1 stays below c on the merged network, by less than y_1 may be larger on the original."""
    original, merged = pair()
    high = float(diff(original, merged, REGION).high[1])
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 101)] * 2), axis=-1).reshape(-1, 2)
    limit = Fraction(float(evaluate(merged.network, grid)[:, 1].max()) + 0.5 * high)
    unsafe = ((Inequality(((1, Fraction(-1)),), -limit, False),),)
    text = write(2, 2, (Case(REGION.cases[0].box, unsafe),))
    below = Property("below", 2, 2, (Case(REGION.cases[0].box, unsafe),), text)
    found = carry(original, merged, below)
    assert isinstance(found.merged.verdict, Proved)
    assert found.widened is not None
    assert not found.over


def say(*arguments):
    return CliRunner().invoke(main, ["condense", *(str(a) for a in arguments)])


@pytest.fixture
def place(tmp_path):
    (tmp_path / "net.onnx").write_bytes(write_onnx(NETWORK))
    (tmp_path / "first.vnnlib").write_bytes(REGION.text)
    against = argmax_in(box([-0.5, -0.5], [0.5, 0.5]), [1], outputs=2)
    (tmp_path / "second.vnnlib").write_bytes(against.text)
    return tmp_path


def test_the_command_tells_which_proofs_carry_over(place):
    asked = (
        place / "net.onnx",
        "--merge",
        "0.25",
        "-o",
        place / "small.onnx",
        "--prove",
        place / "first.vnnlib",
    )
    told = say(*asked)
    assert told.exit_code == 0, told.stderr
    assert "proved of both networks" in " ".join(told.stderr.split())
    both = say(*asked, "--prove", place / "second.vnnlib", "--json")
    assert both.exit_code == 3, both.stderr
    first, second = json.loads(both.stdout)["merged"]["proofs"]
    assert (first["merged"], first["original"]) == ("proved", "proved")
    assert first["difference"] > 0
    assert (second["merged"], second["original"], second["difference"]) == ("violated", "unknown", None)


def test_proofs_without_a_target_or_of_another_network_are_refused(place):
    alone = say(place / "net.onnx", "--prove", place / "first.vnnlib")
    assert alone.exit_code == 2
    assert "say how far to merge" in " ".join(alone.stderr.split())
    other = argmax_in(box([0.0] * 3, [1.0] * 3), [0], outputs=2)
    (place / "wide.vnnlib").write_bytes(other.text)
    wide = say(
        place / "net.onnx", "--merge", "0.25", "-o", place / "s.onnx", "--prove", place / "wide.vnnlib"
    )
    assert wide.exit_code == 2
    assert "3 inputs" in " ".join(wide.stderr.split())
    assert not (place / "s.onnx").exists()
