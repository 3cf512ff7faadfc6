"""The checker on whole files: accepts what is proved, refuses what is not, and says why."""

from __future__ import annotations

import json
import subprocess
import sys

import exported
import numpy as np
import onnxruntime as ort
import pytest
from exported import (
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_PROPERTY,
    certificate,
    dense,
    f32,
    leaning,
    leaning_weights,
)

from sutura.certificate.check import check
from sutura.certificate.schema import Counts
from sutura.certificate.tree import LEAF, Split


def verdict(network, nodes, counts, properties=(ORDER_PROPERTY,), **how):
    return check(network, properties, certificate(network, properties, nodes, counts), **how)


def test_a_sealed_network_is_accepted():
    report = verdict(leaning().save(), LEANING_TREE, LEANING_COUNTS)
    assert report.accepted, report.reason
    assert (report.leaves, report.proved, report.gated, report.rows, report.properties) == (2, 1, 1, 2, 1)


def test_the_template_of_these_tests_runs_and_is_safe():
    session = ort.InferenceSession(leaning().save())
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    (y,) = session.run(None, {"X": x})
    assert (y[:, 0] > y[:, 1]).all()
    plain = ort.InferenceSession(dense(leaning_weights()).save()).run(None, {"X": x})[0]
    assert (plain[:, 0] <= plain[:, 1]).any()
    left = x[:, 0] <= 0
    assert (y[left] == plain[left]).all()


def test_the_network_without_its_gate_is_refused():
    report = verdict(dense(leaning_weights()).save(), LEANING_TREE, Counts(2, 2, 0, 0, 1))
    assert not report.accepted
    assert "leaf 1" in report.reason


def test_a_plain_network_is_accepted_where_it_is_safe():
    narrow = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 0.25")
    report = verdict(dense(leaning_weights()).save(), (LEAF,), Counts(1, 1, 0, 0, 1), (narrow,))
    assert report.accepted, report.reason


def test_the_boundary_itself_is_decided_without_tolerance():
    # y0 = 1 - x0 and y1 = x0 + 0.25 meet at x0 = 0.375: below it safe by more than rounding, at it unsafe.
    for end, wanted in ((b"0.37499", True), (b"0.375", False)):
        text = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 " + end)
        report = verdict(dense(leaning_weights()).save(), (LEAF,), Counts(1, 1, 0, 0, 1), (text,))
        assert report.accepted == wanted, report.reason


def test_leaves_outside_of_every_box_are_counted_apart():
    nodes = (Split(1, 5.0), *LEANING_TREE, LEAF)
    report = verdict(leaning().save(), nodes, Counts(3, 1, 1, 1, 2))
    assert report.accepted, report.reason


@pytest.mark.parametrize("counts", [Counts(2, 2, 0, 0, 2), Counts(3, 1, 1, 1, 2), Counts(2, 1, 1, 0, 3)])
def test_wrong_counts_are_refused(counts):
    report = verdict(leaning().save(), LEANING_TREE, counts)
    assert not report.accepted
    assert "counts" in report.reason


def test_neuron_gates_bind_the_rows_they_name():
    # Row 1 pins h1 = relu(x0) to 0 and h0 to 1: y = (1, 0.25), safe everywhere.
    draft = dense(leaning_weights())
    mask = np.array([[False] * 3, [True, True, False]])
    exported.add_neuron_gate(draft, "h0", mask, [[0, 0, 0], [1, 0, 0]])
    exported.add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)], row=True)
    report = verdict(draft.save(), LEANING_TREE, Counts(2, 2, 0, 0, 2))
    assert report.accepted, report.reason
    swapped = dense(leaning_weights())
    exported.add_neuron_gate(swapped, "h0", mask, [[0, 0, 0], [0, 1, 0]])
    exported.add_dispatch(swapped, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)], row=True)
    report = verdict(swapped.save(), LEANING_TREE, Counts(2, 2, 0, 0, 2))
    assert not report.accepted


def test_an_operator_without_a_rule_is_refused_only_where_a_bound_is_needed():
    draft = leaning()
    at = next(i for i, node in enumerate(draft.nodes) if node.op_type == "Relu")
    draft.nodes[at].op_type = "Softplus"
    report = verdict(draft.save(), LEANING_TREE, LEANING_COUNTS)
    assert not report.accepted
    assert "no rule" in report.reason
    right = ORDER_PROPERTY.replace(b"X_0 -1.0", b"X_0 0.5")
    report = verdict(draft.save(), LEANING_TREE, Counts(2, 0, 1, 1, 2), (right,))
    assert report.accepted, report.reason


def test_an_image_shaped_output_is_flattened_for_its_gate():
    reshaped = dense(leaning_weights(), "flat")
    reshaped.constant("shape", np.array([-1, 2, 1], dtype=np.int64))
    reshaped.node("Reshape", ["flat", "shape"], "sutura.raw")
    reshaped.outputs = (2, 1)
    exported.order_constants(reshaped)
    given = exported.ORDER_GUARD, exported.ORDER_BLOCKS, [[1]], [[1, 0.5]], [0.5, -0.5]
    exported.add_output_gate(reshaped, *given)
    exported.add_dispatch(reshaped, exported.HALVES)
    report = verdict(reshaped.save(), LEANING_TREE, LEANING_COUNTS)
    assert report.accepted, report.reason


def test_workers_change_nothing_and_progress_ends_at_the_total():
    seen = []
    nodes = [Split(0, -0.5), LEAF, Split(0, 0.0), Split(1, 0.5), LEAF, LEAF, LEAF]
    counts = Counts(4, 3, 1, 0, 2)
    reports = [
        verdict(leaning().save(), nodes, counts, workers=n, progress=lambda a, b: seen.append((a, b)))
        for n in (1, 3)
    ]
    assert [r.accepted for r in reports] == [True, True]
    assert reports[0].reason == reports[1].reason
    assert seen[-1] == (4, 4)


def order_dependent(size):
    """y = sum of 1e8, n ones and -1e8 (exactly n): some orders of summation lose all the ones."""
    weight = f32([[1.0]] * size)
    return dense(
        [(f32(np.zeros((1, size))), f32([2.0**24] + [1.0] * (size - 2) + [-(2.0**24)])), (weight, f32([0]))]
    )


def test_a_network_that_depends_on_the_order_of_summation_is_refused():
    text = b"""(declare-const X_0 Real)(declare-const Y_0 Real)
    (assert (>= X_0 -1))(assert (<= X_0 1))(assert (<= Y_0 0.5))"""
    # Relu would drop the negative term, so it enters with a negative weight: 2^24 + 1 + 1 - 2^24.
    hidden = (f32(np.zeros((1, 4))), f32([2.0**24, 1, 1, 2.0**24]))
    network = dense([hidden, (f32([[1], [1], [1], [-1]]), f32([0]))]).save()
    assert ort.InferenceSession(network).run(None, {"X": f32([[0]])})[0][0, 0] in (0.0, 1.0, 2.0)
    report = verdict(network, (LEAF,), Counts(1, 1, 0, 0, 1), (text,))
    assert not report.accepted
    milder = dense([(hidden[0], f32([2.0, 1, 1, 2.0])), (f32([[1], [1], [1], [-1]]), f32([0]))]).save()
    assert verdict(milder, (LEAF,), Counts(1, 1, 0, 0, 1), (text,)).accepted


def test_an_exact_tie_is_decided_from_the_intervals():
    text = b"""(declare-const X_0 Real)(declare-const Y_0 Real)
    (assert (>= X_0 -1))(assert (<= X_0 1))(assert (< Y_0 0))"""
    draft = dense([(f32([[1.0]]), f32([0.0]))], "pre")
    draft.node("Relu", ["pre"], "Y")
    assert verdict(draft.save(), (LEAF,), Counts(1, 1, 0, 0, 1), (text,)).accepted
    closed = text.replace(b"(< Y_0 0)", b"(<= Y_0 0)")
    assert not verdict(draft.save(), (LEAF,), Counts(1, 1, 0, 0, 1), (closed,)).accepted


def test_the_command_line(tmp_path):
    network = leaning().save()
    (tmp_path / "fixed.onnx").write_bytes(network)
    (tmp_path / "p.vnnlib").write_bytes(ORDER_PROPERTY)
    cert = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    (tmp_path / "fixed.cert.json").write_bytes(cert)
    files = [str(tmp_path / name) for name in ("fixed.onnx", "p.vnnlib", "fixed.cert.json")]
    command = [sys.executable, "-m", "sutura.certificate.check"]
    done = subprocess.run([*command, *files, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] is True
    (tmp_path / "p.vnnlib").write_bytes(ORDER_PROPERTY + b"\n")
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("refused: ")
    assert done.stdout.count("\n") == 1
    done = subprocess.run(
        [*command, *files[:2], str(tmp_path / "no")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_room_needs_neither_onnx_nor_the_rest_of_sutura():
    names = "(m for m in sys.modules if '.' not in m or 'sutura' in m)"
    code = f"import sys, sutura.certificate.check; print(*sorted({names}))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"onnx", "onnxruntime", "torch", "scipy", "jaxtyping"} & set(out)
    assert all(
        name in {"sutura"} or name.startswith("sutura.certificate") for name in out if "sutura" in name
    )


@pytest.mark.parametrize("draft", [exported.leaning, exported.leaning_rows])
def test_both_forms_of_the_gate_are_accepted_and_safe(draft):
    network = draft().save()
    report = verdict(network, LEANING_TREE, LEANING_COUNTS)
    assert report.accepted, report.reason
    session = ort.InferenceSession(network)
    x = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    for part in (x, x[x[:, 0] <= 0], x[:1]):
        (y,) = session.run(None, {"X": part})
        assert (y[:, 0] > y[:, 1]).all()
