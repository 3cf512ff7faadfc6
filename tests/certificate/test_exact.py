"""The exact checker: its numbers, its readers, its bound against an independent one, and what it accepts."""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from exported import (
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_PROPERTY,
    add_dispatch,
    add_neuron_gate,
    certificate,
    dense,
    f32,
    leaning,
    leaning_rows,
    leaning_weights,
)
from hypothesis import given
from hypothesis import strategies as st

from sutura.certificate import bound as fast
from sutura.certificate import check as fast_check
from sutura.certificate import exact, tree, vnnlib, wire
from sutura.certificate.compile import compile_network
from sutura.certificate.exact import __main__ as command
from sutura.certificate.float32 import round_down
from sutura.certificate.gates import read_gates
from sutura.certificate.model import open_exported
from sutura.certificate.schema import Counts

FOLDER = Path(exact.__file__).parent
TICK = Fraction(1, 2**149)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def in_ticks(value):
    return exact.ticks.ticks(int(np.float32(value).view(np.uint32)))


# ---- the trust base ----


@pytest.mark.parametrize("source", sorted(FOLDER.glob("*.py")), ids=lambda place: place.name)
def test_it_imports_the_standard_library_alone_and_makes_no_float(source):
    found = ast.parse(source.read_text())
    for node in ast.walk(found):
        if isinstance(node, ast.ImportFrom | ast.Import) and not getattr(node, "level", 0):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names), names
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _plain(node))
        assert not (isinstance(node, ast.Name) and node.id == "float")


def _plain(division):
    """The one division is of Fractions, and so exact."""
    return ast.unparse(division) != "bound / factor"


def test_a_copied_folder_runs_without_site_packages(tmp_path):
    network = leaning_rows().save()
    files = {"fixed.onnx": network, "p.vnnlib": ORDER_PROPERTY}
    files["cert.json"] = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    shutil.copytree(FOLDER, tmp_path / "exact", ignore=shutil.ignore_patterns("__pycache__"))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-I", "-S", "exact", "fixed.onnx", "p.vnnlib", "cert.json", "--workers=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("accepted: ")
    (tmp_path / "p.vnnlib").write_bytes(ORDER_PROPERTY.replace(b"1.0", b"1.5"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("refused: the certificate's properties is not that of these files")
    assert subprocess.run(command[:-3], cwd=tmp_path, capture_output=True, check=False).returncode == 2


def said(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main([*map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def test_the_command_line_reads_packed_files_and_flags(tmp_path):
    network = leaning_rows().save()
    files = {"f.onnx": network, "p.vnnlib.gz": gzip.compress(ORDER_PROPERTY), "p.vnnlib": ORDER_PROPERTY}
    files["c.json"] = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    fixed, packed, plain, written = (tmp_path / name for name in files)
    code, out, err = said(fixed, packed, written, "--json", "--sample=0", "--workers=1")
    assert (code, err, json.loads(out)["accepted"]) == (0, "", True)
    assert json.loads(out)["reason"].endswith("0 of 1 boxes bounded exactly")
    counts = "1 gated, 2 leaves, 0 outside, 1 proved, 2 rows"
    assert said(fixed, plain, written) == (0, f"accepted: {counts}; 1 of 1 boxes bounded exactly\n", "")
    code, out, _ = said(fixed, packed, packed, written, "--workers=1")
    assert code == 1 and out.startswith("refused: ") and out.count("\n") == 1
    for wrong in ((fixed, packed), (fixed, packed, written, "--no"), (fixed, tmp_path / "no", written),
                  (fixed, packed, written, "--sample=x")):  # fmt: skip
        code, out, err = said(*wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)


# ---- numbers ----


@given(finite)
def test_ticks_are_the_number(value):
    assert in_ticks(value) * TICK == Fraction(value)


@given(finite)
def test_the_next_number_up(value):
    assert exact.ticks.next_above(in_ticks(value)) * TICK == min(
        Fraction(tree.next_above(value)) if np.isfinite(tree.next_above(value)) else 2**128, 2**128
    )


@given(st.fractions(min_value=-(2**100), max_value=2**100))
def test_rounding_down(value):
    assert exact.ticks.round_down(value) * TICK == Fraction(round_down(value))


@given(finite, finite)
def test_midpoints_are_those_of_the_format(a, b):
    low, high = sorted((a, b))
    if low < high:
        assert exact.ticks.midpoint(in_ticks(low), in_ticks(high)) * TICK == Fraction(
            tree.midpoint(low, high)
        )


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000])
def test_what_is_not_finite_is_refused(bits):
    with pytest.raises(exact.ticks.RefusedError):
        exact.ticks.ticks(bits)


# ---- readers ----


def test_both_readers_see_the_same_file():
    data = leaning_rows().save()
    theirs, ours = wire.read_model(data), exact.graph.read_graph(data)
    assert set(theirs.constants) == set(ours.constants)
    for name, value in theirs.constants.items():
        scale = 1 if value.dtype.kind in "ib" else TICK
        assert [v * scale for v in ours.constants[name].values] == [
            Fraction(v) if value.dtype.kind == "f" else int(v) for v in value.reshape(-1).tolist()
        ]
        assert ours.constants[name].shape == value.shape
    assert [n.op for n in open_exported(data).nodes] == [n.op for n in ours.nodes]


@pytest.mark.parametrize(
    "formula",
    [
        "(<= Y_0 Y_1)",
        "(or (and (<= Y_0 1.5e-1) (>= X_0 0.25)) (and (> Y_1 (+ Y_0 2))))",
        "(and (= Y_0 0.5) (or (= Y_1 (* 3 Y_0)) (< Y_1 0)))",
        "(or (< (- (* 2 Y_0) (* Y_1 0.1)) -3) (>= Y_0 (- Y_1)))",
    ],
)
def test_both_readers_see_the_same_property(formula):
    text = ORDER_PROPERTY.replace(b"(assert (<= Y_0 Y_1))", f"(assert {formula})".encode())
    theirs = vnnlib.read_property(text)
    inputs, outputs, cases = exact.vnnlib.read_property(text)
    assert (inputs, outputs, len(cases)) == (theirs.inputs, theirs.outputs, len(theirs.cases))
    for ours, case in zip(cases, theirs.cases, strict=True):
        assert [v * TICK for v in (*ours.lower, *ours.upper)] == [*map(Fraction, (*case.lower, *case.upper))]
        want = [[(i.terms, i.bound, i.strict) for i in c] for c in case.unsafe]
        assert [[(t, b, s) for t, b, s in c] for c in ours.unsafe] == want


# ---- the bound, against an independent one in rational numbers ----


def reference(weights, low, high, row):
    """Lower bound of row . output over a box by substitution, written apart, in Fractions.

    Lines and error model are those of docs/certificate.md: gamma_{n+1} (|W| m + |b|) + underflow a neuron.
    """
    layers = [([[Fraction(float(v)) for v in column] for column in w.T], [Fraction(float(v)) for v in b])
              for w, b in weights]  # fmt: skip
    values = [([Fraction(v) for v in low], [Fraction(v) for v in high])]
    noise, lines = [], []
    for at, (rows, bias) in enumerate(layers):
        size = [max(abs(a), abs(b)) for a, b in zip(*values[-1], strict=True)]
        noise.append([_noise(w, b, size) for w, b in zip(rows, bias, strict=True)])
        ends = []
        for i, (w, b, e) in enumerate(zip(rows, bias, noise[-1], strict=True)):
            pairs = [(v * x, v * y) for v, x, y in zip(w, *values[-1], strict=True)]
            plain = [b + sum(map(min, pairs)) - e, b + sum(map(max, pairs)) + e]
            if at and plain[0] < 0 < plain[1] and at < len(layers) - 1:
                unit = [Fraction(int(j == i)) for j in range(len(bias))]
                plain[0] = max(plain[0], _back(layers[: at + 1], noise, lines, values[0], unit))
                plain[1] = min(
                    plain[1], -_back(layers[: at + 1], noise, lines, values[0], [-v for v in unit])
                )
            ends.append(plain)
        if at < len(layers) - 1:
            lines.append([_lines(*end) for end in ends])
            values.append(([max(a, 0) for a, _ in ends], [max(b, 0) for _, b in ends]))
    interval = sum((v * (a if v > 0 else b) for v, (a, b) in zip(row, ends, strict=True)), Fraction(0))
    return max(interval, _back(layers, noise, lines, values[0], row))


def _noise(w, b, size):
    k, n = len(w) + 1, len(w)
    total = sum(abs(v) * m for v, m in zip(w, size, strict=True)) + abs(b)
    tiny = (4 * n + 4) * Fraction(1, 2**126) * (1 + max(map(abs, w)) + max(size))
    return Fraction(k, 2**24 - k) * total + tiny


def _lines(low, high):
    if low >= 0 or high <= 0:
        same = Fraction(int(low >= 0))
        return same, same, Fraction(0)
    slope = high / (high - low)
    return Fraction(int(high > -low)), slope, -slope * low


def _back(layers, noise, lines, box, row):
    constant, row = Fraction(0), [Fraction(v) for v in row]
    for at in reversed(range(len(layers))):
        rows, bias = layers[at]
        if at < len(layers) - 1:
            flat = [v * (a if v > 0 else s) for v, (a, s, _) in zip(row, lines[at], strict=True)]
            constant += sum(min(v, 0) * t for v, (_, _, t) in zip(row, lines[at], strict=True))
            constant -= sum(abs(v) * Fraction(1, 2**125) for v in row)
            row = flat
        constant += sum(v * b - abs(v) * e for v, b, e in zip(row, bias, noise[at], strict=True))
        row = [sum(v * w[j] for v, w in zip(row, rows, strict=True)) for j in range(len(rows[0]))]
    return constant + sum(v * (a if v > 0 else b) for v, a, b in zip(row, *box, strict=True))


def random_net(rng, sizes, scale=1.0):
    return [(f32(rng.normal(size=(a, b)) * scale), f32(rng.normal(size=b))) for a, b in pairwise(sizes)]


def example(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(v) for v in rng.integers(1, 6, int(rng.integers(2, 6)))]
    weights = random_net(rng, sizes, (1.0, 2.0**-20, 30.0)[seed % 3])
    centre, width = rng.normal(size=sizes[0]), rng.random(sizes[0]) * (0.05, 1.0)[seed % 2]
    return weights, f32(centre - width), f32(centre + width), rng.integers(-3, 4, sizes[-1])


def exact_bound(weights, low, high, row):
    g = exact.graph.read_graph(dense(weights).save())
    layers, output = exact.rules.compile_network(g, exact.gates.read_gates(g))
    b = exact.bound.bound(layers, 0, [*map(in_ticks, low)], [*map(in_ticks, high)])
    assert b is not None
    interval = sum(
        int(c) * (x if c > 0 else y) for c, x, y in zip(row, b[output].lower, b[output].upper, strict=True)
    )
    back = exact.bound.lowest(b, layers, output, [int(v) for v in row])[0]
    return max(Fraction(back, 2**213), interval * TICK)


@pytest.mark.parametrize("seed", range(60))
def test_the_bound_agrees_with_the_independent_one(seed):
    weights, low, high, row = example(seed)
    ours = exact_bound(weights, low, high, row)
    theirs = reference(weights, low.tolist(), high.tolist(), [Fraction(int(v)) for v in row])
    size = abs(theirs) + Fraction(1, 2**60)
    assert ours <= theirs + size * Fraction(1, 2**28), "slopes are rounded, so lines may differ by 2^-32"
    assert theirs - ours <= size * Fraction(1, 2**24)


def fast_bound(weights, low, high, row):
    found = open_exported(dense(weights).save())
    program = compile_network(found, read_gates(found))
    box = fast.Boxes(np.float64(low)[None], np.float64(high)[None], np.zeros(1, dtype=np.int64))
    state = fast.sweep(program, box)
    start = {program.output: np.float64(row)[None]}
    return Fraction(float(fast.lowest(state, start, np.zeros(1), np.zeros(1, dtype=int))[0][0]))


@pytest.mark.parametrize("seed", range(40))
def test_the_fast_bound_is_never_above_the_exact_one(seed):
    weights, low, high, row = example(seed + 100)
    ours, theirs = exact_bound(weights, low, high, row), fast_bound(weights, low, high, row)
    assert theirs <= ours + abs(ours) * Fraction(1, 2**28)


@pytest.mark.parametrize("seed", range(30))
def test_every_execution_lies_inside_at_every_neuron(seed):
    weights, low, high, _ = example(seed)
    g = exact.graph.read_graph(dense(weights).save())
    layers, _ = exact.rules.compile_network(g, exact.gates.read_gates(g))
    b = exact.bound.bound(layers, 0, [*map(in_ticks, low)], [*map(in_ticks, high)])
    rng = np.random.default_rng(seed)
    for _ in range(20):
        x = np.clip(f32(low + rng.random(len(low)) * (high - low)), low, high)
        values, h = [], x
        for at, (w, bias) in enumerate(weights):
            order = rng.permutation(len(h))
            z = bias.copy() if rng.random() < 0.5 else np.zeros_like(bias)
            started = bool((z == bias).all())
            for j in order:
                z = f32(z + f32(h[j] * w[j]))
            h = z if started else f32(z + bias)
            values.append(h)
            if at < len(weights) - 1:
                h = np.maximum(h, np.float32(0))
                values.append(h)
        for value, found in zip(values, b[1:], strict=True):
            ends = zip(found.lower, value, found.upper, strict=True)
            assert all(low <= in_ticks(v) <= high for low, v, high in ends)


# ---- whole certificates: both checkers say the same ----


def both(network, nodes=LEANING_TREE, counts=LEANING_COUNTS, properties=(ORDER_PROPERTY,)):
    written = certificate(network, properties, nodes, counts)
    theirs = fast_check.check(network, properties, written)
    accepted, reason = exact.check([network, *properties, written])
    assert accepted == theirs.accepted, (reason, theirs.reason)
    assert "\n" not in reason
    return accepted, reason


@pytest.mark.parametrize("draft", [leaning, leaning_rows])
def test_gated_networks_are_accepted(draft):
    assert both(draft().save())[0]


def test_neuron_gates_are_accepted_and_needed():
    draft = dense(leaning_weights())
    add_neuron_gate(draft, "h0", np.array([[False] * 3, [True, True, False]]), [[0, 0, 0], [1, 0, 0]])
    add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)], row=True)
    good = Counts(leaves=2, proved=2, gated=0, outside=0, rows=2)
    assert both(draft.save(), counts=good)[0]
    draft = dense(leaning_weights())
    add_neuron_gate(draft, "h0", np.array([[False] * 3, [True, True, False]]), [[0, 0, 0], [0, 0, 0]])
    add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)], row=True)
    accepted, reason = both(draft.save(), counts=good)
    assert not accepted
    assert "no bound shows it safe" in reason


def test_an_unrepaired_network_is_refused():
    counts = Counts(leaves=2, proved=2, gated=0, outside=0, rows=1)
    accepted, reason = both(dense(leaning_weights()).save(), counts=counts)
    assert not accepted
    assert reason == "leaf 1, row 0: no bound shows it safe over its box"


def convolutional(op="Relu", **attributes):
    draft = dense([(np.eye(8), np.zeros(8))])
    draft.inputs, draft.outputs, draft.nodes = (1, 4, 4), (2,), []
    rng = np.random.default_rng(5)
    draft.constant("K", f32(rng.normal(size=(2, 1, 3, 3))))
    draft.constant("k", f32(rng.normal(size=2)))
    value = draft.node("Conv", ["X", "K", "k"], "c", pads=[1, 1, 1, 1], strides=[2, 2])
    value = draft.node(op, [value], "r", **attributes)
    value = draft.node("Flatten", [value], "f")
    draft.constant("W", f32(rng.normal(size=(8, 2)) * 0.1))
    draft.constant("b", f32([4.0, -4.0]))
    value = draft.node("Gemm", [value, "W", "b"], "g")
    draft.constant("s", f32([1.5]))
    draft.node("Mul", [draft.node("Add", [value, value], "twice"), "s"], "Y")
    return draft.save()


@pytest.mark.parametrize(("op", "attributes"), [("Relu", {}), ("LeakyRelu", {"alpha": 0.1})])
def test_convolutions_residuals_and_scales(op, attributes):
    text = "".join(f"(declare-const X_{i} Real)\n" for i in range(16))
    text += "(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
    text += "".join(f"(assert (>= X_{i} -0.1))\n(assert (<= X_{i} 0.1))\n" for i in range(16))
    one = Counts(leaves=1, proved=1, gated=0, outside=0, rows=1)
    network = convolutional(op, **attributes)
    safe = (text + "(assert (<= Y_0 Y_1))\n").encode()
    assert both(network, (tree.LEAF,), one, [safe])[0]
    unsafe = (text + "(assert (>= Y_0 Y_1))\n").encode()
    assert not both(network, (tree.LEAF,), one, [unsafe])[0]


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_with_a_transposed_weight(turned):
    draft = dense([(np.zeros((2, 3)), np.zeros(3))])
    weight = f32([[1, 2, 3], [-1, 0.5, 4]])
    draft.nodes = []
    draft.constants = {"W": weight.T.copy() if turned else weight, "b": f32([0.5, 0, -1])}
    draft.node("Gemm", ["X", "W", "b"], "Y", transB=turned)
    one = Counts(leaves=1, proved=1, gated=0, outside=0, rows=1)
    text = ORDER_PROPERTY.decode().replace("(assert (<= Y_0 Y_1))", "(declare-const Y_2 Real)\n")
    safe = f"{text}(assert (or (>= Y_0 2.6) (>= Y_1 2.6) (>= Y_2 6.1)))".encode()
    unsafe = f"{text}(assert (>= Y_2 5.9))".encode()
    assert both(draft.save(), (tree.LEAF,), one, [safe])[0]
    assert not both(draft.save(), (tree.LEAF,), one, [unsafe])[0]


def test_ties_are_decided_exactly():
    draft = dense([(f32([[1.0]]), f32([0.0]))])
    draft.nodes = []
    draft.node("Relu", ["X"], "Y")
    one = Counts(leaves=1, proved=1, gated=0, outside=0, rows=1)
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))"
    assert both(draft.save(), (tree.LEAF,), one, [f"{text}(assert (< Y_0 0))".encode()])[0]
    assert not both(draft.save(), (tree.LEAF,), one, [f"{text}(assert (<= Y_0 0))".encode()])[0]


def test_a_sample_is_drawn_by_the_certificate_and_checks_the_rest():
    network = leaning().save()
    written = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    accepted, reason = exact.check([network, ORDER_PROPERTY, written], sample=0)
    assert accepted
    assert reason.endswith("0 of 1 boxes bounded exactly")
    wrong = certificate(network, [ORDER_PROPERTY], LEANING_TREE, Counts(2, 2, 0, 0, 2))
    assert not exact.check([network, ORDER_PROPERTY, wrong], sample=0)[0]


def test_a_checker_that_loses_a_process_accepts_nothing():
    network = leaning().save()
    files = [network, ORDER_PROPERTY, certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)]
    proof, settle = exact.proof, exact.proof.settle

    def die(*arguments):
        raise proof.BrokenProcessPool

    proof.settle = die
    try:
        assert proof.check(files) == (False, "a process of the checker died, so nothing is claimed")
    finally:
        proof.settle = settle
    assert proof.check(files)[0]


def test_progress_counts_to_the_end_and_workers_change_nothing():
    network = leaning().save()
    files = [network, ORDER_PROPERTY, certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)]
    seen = []
    assert exact.check(files, workers=2, progress=lambda *at: seen.append(at)) == exact.check(files)
    assert seen == [(1, 1)]
