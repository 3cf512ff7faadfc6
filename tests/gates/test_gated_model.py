"""The repaired file in ONNX Runtime: safe in the boxes, untouched elsewhere, moved as little as can be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_networks import (
    at_most,
    convolution,
    cube,
    gate_everything,
    just_outside,
    less,
    loaded,
    mlp,
    points,
    prop,
    quiet_session,
    run_original,
    run_repaired,
)

from sutura.bounds.lower import Hold
from sutura.errors import SuturaError
from sutura.gates.cells import Cell, Cut
from sutura.gates.evaluate import nearest_changes, same_bits, violating
from sutura.gates.gate import NeuronGate
from sutura.gates.gated_model import gated_model
from sutura.gates.onnx_part import constants
from sutura.gates.rows import rows_of
from sutura.gates.safe_set import inner_point, safe_set
from sutura.network.onnx_write import write_onnx
from sutura.property.build import argmax_in, argmax_not_in, argmin_in, argmin_not_in, robustness

INPUTS, OUTPUTS = 3, 4
NETWORKS = {seed: mlp([INPUTS, 8, OUTPUTS], seed) for seed in range(3)}


@st.composite
def boxes(draw):
    low = [draw(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.1])) for _ in range(INPUTS)]
    width = [draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])) for _ in range(INPUTS)]
    return cube(low, [a + w for a, w in zip(low, width, strict=True)])


@st.composite
def conjunctions(draw):
    kind = draw(st.sampled_from(["order", "order", "threshold", "sum"]))
    i, j = draw(st.permutations(range(OUTPUTS)))[:2]
    strict = draw(st.booleans())
    if kind == "order":
        return less(i, j, strict=strict)
    bound = draw(st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(-2), Fraction(5, 4)]))
    if kind == "threshold":
        return at_most({i: draw(st.sampled_from([1, -1, Fraction(3, 7)]))}, bound, strict=strict)
    return at_most(
        {i: draw(st.sampled_from([1, 2, Fraction(-1, 3)])), j: draw(st.sampled_from([1, -1]))}, bound
    )


@st.composite
def properties(draw):
    made = []
    for number in range(draw(st.integers(1, 2))):
        cases = []
        for _ in range(draw(st.integers(1, 2))):
            unsafe = st.lists(conjunctions(), min_size=1, max_size=2, unique=True)
            cases.append((draw(boxes()), draw(st.lists(unsafe, min_size=1, max_size=2))))
        made.append(prop(f"p{number}", INPUTS, OUTPUTS, *cases))
    return made


def check_repair(data, properties, seed=0, count=400):
    """Everything that a gate promises, on sampled points; the model for more."""
    model = gate_everything(loaded(data).network, properties)
    before, after = run_original(data), run_repaired(model.onnx)
    hulls = [case.box for p in properties for case in p.cases]
    x = np.concatenate([points(box, count, seed + i) for i, box in enumerate(hulls)])
    was, now = before(x), after(x)
    assert not violating(properties, x, now).any()
    right = ~violating(properties, x, was)
    assert same_bits(was[right], now[right]).all()
    beyond = np.concatenate([just_outside(box, 60, seed) for box in hulls])
    held = np.zeros(len(beyond), bool)
    for box in hulls:
        low, high = box.float32_hull()
        held |= ((beyond >= low) & (beyond <= high)).all(axis=1)
    beyond = beyond[~held]
    if len(beyond):
        assert same_bits(before(beyond), after(beyond)).all()
        assert not rows_of(model.onnx)(beyond).any()
    assert (rows_of(model.onnx)(x) > 0).all()
    return model, (x, was, now)


def check_nearest(properties, moved, tolerance=1e-3):
    """Moved outputs went as far as the exact projection says, up to rounding."""
    x, was, now = moved
    cases = [case for p in properties for case in p.cases]
    for row in np.flatnonzero(violating(properties, x, was))[:40]:
        inside = [
            c
            for c in cases
            if np.all(c.box.float32_hull()[0] <= x[row]) and np.all(x[row] <= c.box.float32_hull()[1])
        ]
        safe = safe_set(u for c in inside for u in c.unsafe)
        least = nearest_changes(was[row : row + 1], safe)[0]
        size = float(abs(was[row]).max()) + least * was.shape[1]
        euclid = np.linalg.norm(now[row].astype(np.float64) - was[row])
        nearest = np.linalg.norm(euclidean(was[row], safe))
        assert euclid <= nearest * (1 + tolerance) + 1e-4 * (size + 3), (was[row], now[row], safe)
        assert least <= abs(now[row].astype(np.float64) - was[row]).mean() * was.shape[1] ** 0.5 + 1e-6 * size


def euclidean(y, safe):
    from sutura.gates.evaluate import _nearest  # the move itself, not only its mean
    from sutura.gates.safe_set import alternatives

    n = len(y)
    pieces = [
        (np.array([x.row(n) for x in piece]).reshape(-1, n), np.array([float(x.bound) for x in piece]))
        for piece in alternatives(safe)
    ]
    return _nearest(y.astype(np.float64), pieces)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), properties(), st.integers(0, 1000))
def test_random_properties(network, drawn, seed):
    try:
        model, moved = check_repair(NETWORKS[network], drawn, seed)
    except SuturaError:
        assume(False)
    if model.exact:
        check_nearest(drawn, moved)


@pytest.mark.parametrize("build", [argmax_in, argmax_not_in, argmin_in, argmin_not_in])
@pytest.mark.parametrize("labels", [[0], [1, 3], [0, 1, 2]])
def test_sets_of_labels(build, labels):
    wanted = [build(cube([-1] * INPUTS, [1] * INPUTS), labels, outputs=OUTPUTS)]
    model, moved = check_repair(NETWORKS[1], wanted)
    assert model.exact
    check_nearest(wanted, moved)


@pytest.mark.parametrize("label", [0, 7])
def test_robustness_of_ten_classes_is_projected_exactly(label):
    data = mlp([4, 12, 10], 5)
    wanted = [robustness([0.5, 0.2, 0.9, 0.4], 0.4, label, classes=10)]
    model, moved = check_repair(data, wanted)
    assert model.exact
    assert violating(wanted, moved[0], moved[1]).sum() > 40
    check_nearest(wanted, moved)


def apart(*builds):
    """One property in each of several boxes side by side."""
    boxes = [cube([2 * at, -1, -1, -1], [2 * at + 1, 1, 1, 1]) for at in range(len(builds))]
    return [
        build(box, labels, outputs=7, name=f"p{at}")
        for at, (box, (build, labels)) in enumerate(zip(boxes, builds, strict=True))
    ]


@pytest.mark.parametrize(
    ("builds", "stars"),
    [
        ([(argmax_in, [0]), (argmax_in, [6]), (argmax_in, [3])], 1),
        ([(argmin_in, [0]), (argmin_in, [6]), (argmin_in, [3])], 1),
        ([(argmax_in, [0]), (argmax_in, [2, 5]), (argmax_not_in, [1])], 2),
        ([(argmax_in, [0]), (argmin_in, [0])], 2),
        ([(argmax_in, [4]), (argmax_in, [4])], 1),
    ],
)
def test_leaders_of_several_rows_are_looked_up_and_projected_exactly(builds, stars):
    wanted = apart(*builds)
    model, moved = check_repair(mlp([4, 12, 7], 5), wanted)
    assert model.exact
    assert violating(wanted, moved[0], moved[1]).sum() > 40
    check_nearest(wanted, moved)
    names = {output for node in mended(model.onnx) for output in node.output}
    assert sum(name.removeprefix("sutura.star").isdigit() for name in names) == stars


def mended(data):
    """The nodes of the branch that mends."""
    (switch,) = (node for node in onnx.load_from_string(data).graph.node if node.op_type == "If")
    return next(a.g.node for a in switch.attribute if a.name == "then_branch")


def test_least_of_ten_is_projected_exactly():
    wanted = [argmin_in(cube([-1] * 4, [1] * 4), [3], outputs=10)]
    model, moved = check_repair(mlp([4, 12, 10], 6), wanted)
    assert model.exact
    check_nearest(wanted, moved)


def test_sums_of_many_outputs_are_projected_and_not_replaced():
    terms = {i: Fraction(1) for i in range(10)}
    wanted = [prop("sum", 4, 10, (cube([-1] * 4, [1] * 4), [[at_most(terms, 5)]]))]
    model, moved = check_repair(mlp([4, 12, 10], 7), wanted)
    assert model.exact
    assert violating(wanted, moved[0], moved[1]).sum() > 40
    check_nearest(wanted, moved)


def test_overlapping_boxes_get_both_demands():
    first = prop("first", 3, 4, (cube([-1, -1, -1], [0.5, 1, 1]), [[less(0, 1)]]))
    second = prop("second", 3, 4, (cube([0, -1, -1], [1, 1, 1]), [[less(2, 3)]]))
    model, (x, _, now) = check_repair(NETWORKS[0], [first, second])
    both = (x[:, 0] >= 0) & (x[:, 0] <= 0.5)
    assert both.any()
    assert (now[both][:, 0] > now[both][:, 1]).all()
    assert (now[both][:, 2] > now[both][:, 3]).all()
    assert len(np.unique(rows_of(model.onnx)(x))) == 3


def mixed_case():
    wanted = [
        argmax_in(cube([-1, -1, -1], [0.5, 1, 1]), [0], outputs=4, name="a"),
        prop("b", 3, 4, (cube([0, -1, -1], [2, 1, 1]), [[at_most({0: 1, 1: 1, 2: 1}, 1)]])),
    ]
    model = gate_everything(loaded(NETWORKS[2]).network, wanted)
    x = np.random.default_rng(0).uniform(-2, 2, (1000, 3)).astype(np.float32)
    return wanted, model, x


def test_batches_and_single_samples_agree():
    wanted, model, x = mixed_case()
    after, before = run_repaired(model.onnx), run_original(NETWORKS[2])
    whole = after(x)
    assert violating(wanted, x, before(x)).any()
    for size in (1, 2, 7):
        parts = np.concatenate([after(x[i : i + size]) for i in range(0, 210, size)])
        assert same_bits(whole[:210], parts).all()
    assert not violating(wanted, x, whole).any()


def test_neighbours_in_a_batch_do_not_matter():
    _, model, x = mixed_case()
    after = run_repaired(model.onnx)
    alone = np.concatenate([after(x[i : i + 1]) for i in range(50)])
    for other in (x[500], np.float32([9, 9, 9]), np.float32([np.nan, 0, 0]), np.float32([np.inf, 0, 0])):
        paired = np.concatenate([after(np.stack([x[i], other]))[:1] for i in range(50)])
        assert same_bits(alone, paired).all()


def test_not_a_number_never_raises():
    _, model, x = mixed_case()
    bad = x[:64].copy()
    bad[::3, 0], bad[1::3, 1], bad[2::3, 2] = np.nan, np.inf, -np.inf
    bad[10] = np.nan
    before, after = run_original(NETWORKS[2]), run_repaired(model.onnx)
    assert after(bad).shape == (64, 4)
    infinite = np.isinf(bad).any(axis=1) & ~np.isnan(bad).any(axis=1)
    assert same_bits(before(bad[infinite]), after(bad[infinite])).all()


def test_networks_that_overflow_deliver_the_constant():
    data = mlp([2, 6, 2], 1, scale=1e25)
    wanted = [prop("p", 2, 2, (cube([-1, -1], [1, 1]), [[less(0, 1)]]))]
    model = gate_everything(loaded(data).network, wanted)
    x = points(wanted[0].cases[0].box, 500, 0)
    was, now = run_original(data)(x), run_repaired(model.onnx)(x)
    assert not np.isfinite(was).all()
    assert not violating(wanted, x, now).any()
    assert (now[:, 0] > now[:, 1]).all()


def test_inputs_of_rank_four_and_outputs_of_rank_three():
    data = convolution()
    assert loaded(data).network.input_shape == (1, 2, 2)
    assert loaded(data).network.output_shape == (1, 5)
    wanted = [
        argmax_in(cube([-1] * 4, [1] * 4), [2], outputs=5),
        robustness([2.0] * 4, 0.5, 1, classes=5, high=None),
    ]
    model, moved = check_repair(data, wanted)
    check_nearest(wanted, moved)
    out = quiet_session(model.onnx).run(None, {"x": np.zeros((3, 1, 2, 2), np.float32)})[0]
    assert out.shape == (3, 1, 5)


def test_thresholds_on_one_output_need_no_other_block():
    wanted = [prop("p", 3, 4, (cube([-1] * 3, [1] * 3), [[at_most({1: 1}, 2)], [at_most({1: -1}, -3)]]))]
    model, (_, _, now) = check_repair(NETWORKS[0], wanted)
    assert model.exact
    assert ((now[:, 1] > 2) & (now[:, 1] < 3)).all()
    names = {t.name for t in constants(onnx.load_from_string(model.onnx).graph)}
    assert {"sutura.above", "sutura.below"} <= names
    assert not {"sutura.lhs", "sutura.linear"} & names


FILES = {
    "orders": lambda: mixed_case()[1].onnx,
    "rank": lambda: (
        gate_everything(
            loaded(convolution()).network, [argmax_in(cube([-1] * 4, [1] * 4), [2], outputs=5)]
        ).onnx
    ),
    "star": lambda: (
        gate_everything(loaded(mlp([4, 6, 10], 0)).network, [robustness([0.5] * 4, 0.1, 0, classes=10)]).onnx
    ),
    "several stars": lambda: (
        gate_everything(
            loaded(mlp([4, 6, 10], 0)).network,
            [robustness([0.2] * 4, 0.1, 0, classes=10), robustness([0.8] * 4, 0.1, 3, classes=10)],
        ).onnx
    ),
}


@pytest.mark.parametrize("kind", sorted(FILES))
def test_the_file_is_valid_pinned_and_deterministic(kind, capfd):
    data = FILES[kind]()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert {o.domain: o.version for o in model.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert data == FILES[kind]()
    quiet_session(data)
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out == ""


@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_initializer_is_read_and_every_name_is_unique(kind):
    graph = onnx.load_from_string(FILES[kind]()).graph
    read, names, values = set(), [], []

    def walk(nodes):
        for node in nodes:
            read.update(node.input)
            names.append(node.name)
            values.extend(node.output)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    read.update(o.name for o in attribute.g.output)
                    walk(attribute.g.node)

    walk(graph.node)
    fixed = [t.name for t in constants(graph)]
    assert set(fixed) <= read
    assert len(fixed) == len(set(fixed))
    assert len(names) == len(set(names))
    assert len(values) == len(set(values))


def test_without_gates_the_network_is_written_alone():
    network = loaded(NETWORKS[0]).network
    model = gated_model(network, (Cell(0),), [])
    assert model.exact
    assert model.onnx == write_onnx(network)


def renamed(data, names):
    """The same network with other value names."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        for field in (node.input, node.output):
            changed = [names.get(v, v) for v in field]
            del field[:]
            field.extend(changed)
    return model.SerializeToString()


def test_neuron_gates_on_values_with_awkward_names():
    data = renamed(mlp([3, 5, 4, 2], 1), {"h0": "h", "h1": "h.row"})
    masks = np.array([1, 0, 0, 1, 0], bool), np.array([0, 0, 1, 0], bool)
    holds = {
        name: Hold(mask, np.arange(len(mask)).astype(np.float32))
        for name, mask in zip(("h", "h.row"), masks, strict=True)
    }
    gates = [NeuronGate(holds)]
    tree = (Cut(0, 0.0), Cell(0), Cell(1))
    assert gates[0].neurons == 3
    model = onnx.load_from_string(gated_model(loaded(data).network, tree, gates).onnx)
    onnx.checker.check_model(model, full_check=True)
    for value in ("h", "h.row"):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    x = np.float32([[-1, 2, 3], [1, 2, 3], [np.nan, 2, 3]])
    y, first, second = quiet_session(model.SerializeToString()).run(None, {"x": x})
    assert first[1][masks[0]].tolist() == [0, 3]
    assert second[1][masks[1]].tolist() == [2]
    assert same_bits(y[:1], run_original(data)(x)[:1]).all()


def test_constants_are_safe_even_far_from_the_outputs():
    safe = safe_set([(at_most({0: 1}, 10**6),), (at_most({1: -1}, 10**6),)])
    assert inner_point(safe, np.zeros(2)) is not None
