"""Proofs that carry over from a merged network to the original."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from test_merge import chain, gemm

from sutura.condensation.carry import carried
from sutura.condensation.merge import merge, plan
from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.property.build import argmax_in, box
from sutura.property.read import read_property
from sutura.verdict.difference import diff
from sutura.verdict.outcome import Proved
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
