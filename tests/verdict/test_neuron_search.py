"""Splitting neurons decides what splitting inputs decides, and what is known by construction."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from planted import at_least, at_most, case, dense, hat, loaded, prop, single

from sutura.bounds.ascent import Domain
from sutura.bounds.crown import crown
from sutura.bounds.lower import lower
from sutura.bounds.region import Region
from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.onnx_write import to_model, write_onnx
from sutura.network.read import load
from sutura.network.run import open_session
from sutura.property.read import read_property
from sutura.property.spec import violates
from sutura.property.write import write
from sutura.verdict import search, strategy
from sutura.verdict.goal import goal
from sutura.verdict.neuron_roots import ROOT, stages
from sutura.verdict.neuron_search import decide_by_neurons
from sutura.verdict.neuron_step import bounded
from sutura.verdict.outcome import Proved, Unknown, Violated
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig


def by_neurons(network, *cases, timeout=20.0, workers=1, seed=0, decide=decide_by_neurons, **options):
    wanted = prop(network.network.input_size, network.network.output_size, *cases)
    run = runner(open_session(write_onnx(network.network)))
    config = VerifyConfig(timeout=timeout, workers=workers, seed=seed)
    return decide(lower(network.network), run, wanted, config, **options), wanted, run


def random_case(seed):
    """A small network, and a property near the edge of truth."""
    random = np.random.default_rng(seed)
    inputs, outputs = int(random.integers(2, 7)), int(random.integers(1, 4))
    sizes = [inputs, *(int(v) for v in random.integers(3, 9, int(random.integers(1, 4)))), outputs]
    layers = []
    for n, m in pairwise(sizes):
        layers += [dense(random.normal(size=(m, n)) / np.sqrt(n), random.normal(size=m) / 2), ops.Relu()]
    if random.random() < 0.3:
        layers[1] = random.choice([ops.LeakyRelu(0.125), ops.Sigmoid(), ops.Tanh()])
    network = loaded(inputs, *layers[:-1])
    low = np.round(random.normal(size=inputs) - random.random(inputs), 3)
    high = low + np.round(0.2 + random.random(inputs), 3)
    run = runner(open_session(write_onnx(network.network)))
    y = run(single(low + random.random((512, inputs)) * (high - low)))
    margin = float(random.choice([0.5, 0.1, 0.01, -0.05]))
    conjunction = tuple(
        at_least(i, Fraction(round(float(y[:, i].max() + margin * (y[:, i].std() + 1e-3)), 4)))
        for i in range(int(random.integers(1, outputs + 1)))
    )
    return network, case([str(v) for v in low], [str(v) for v in high], conjunction)


@pytest.mark.parametrize("seed", range(24))
def test_it_decides_as_input_splitting_does(seed):
    network, asked = random_case(seed)
    ours, wanted, run = by_neurons(network, asked)
    theirs, *_ = by_neurons(network, asked, decide=search.decide)
    assert type(ours.verdict) is type(theirs.verdict)
    if isinstance(ours.verdict, Violated):
        witness = ours.verdict.witness
        assert violates(wanted, witness.input, run(witness.input[None])[0])
    else:
        assert ours.account.proved_share == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(100, 124))
def test_it_decides_as_marabou_does(seed, tmp_path):
    marabou = pytest.importorskip("maraboupy.Marabou")
    network, asked = random_case(seed)
    ours, wanted, _ = by_neurons(network, asked)
    model = to_model(network.network)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    files = tmp_path / "n.onnx", tmp_path / "p.vnnlib"
    files[0].write_bytes(model.SerializeToString())
    files[1].write_bytes(write(wanted.inputs, wanted.outputs, (asked,)))
    options = marabou.createOptions(verbosity=0, timeoutInSeconds=20)
    try:
        said = marabou.read_onnx(str(files[0])).solve(propertyFilename=str(files[1]), options=options)[0]
    except NotImplementedError:
        pytest.skip("an activation that Marabou does not read")
    assert {Proved: "unsat", Violated: "sat"}.get(type(ours.verdict), said) == said


def wide(inputs=40, hidden=30, seed=3):
    """A network with many inputs whose output stays small on a box."""
    random = np.random.default_rng(seed)
    first = dense(random.normal(size=(hidden, inputs)) / np.sqrt(inputs), random.normal(size=hidden) / 4)
    second = dense(random.normal(size=(hidden, hidden)) / np.sqrt(hidden), random.normal(size=hidden) / 4)
    third = dense(random.normal(size=(1, hidden)) / np.sqrt(hidden), [0.0])
    return loaded(inputs, first, ops.Relu(), second, ops.Relu(), third)


def test_the_strategy_splits_neurons_where_many_inputs_vary():
    asked = case([-0.1] * 40, [0.1] * 40, (at_least(0, Fraction(3)),))
    outcome, *_ = by_neurons(wide(), asked, decide=strategy.decide)
    assert isinstance(outcome.verdict, Proved)
    assert strategy.varying(prop(40, 1, asked)) == 40
    few = case([0] * 40, [0] * 38 + [1, 1], (at_least(0, Fraction(3)),))
    assert strategy.varying(prop(40, 1, few)) == 2


def test_a_hidden_peak_is_found():
    peak = [0.11, 0.52, -0.3]
    unsafe = case([-1] * 3, [1] * 3, (at_least(0, Fraction(1, 2)),))
    outcome, wanted, run = by_neurons(hat(peak, steepness=300.0), unsafe)
    assert isinstance(outcome.verdict, Violated)
    assert violates(wanted, outcome.verdict.witness.input, run(outcome.verdict.witness.input[None])[0])


@pytest.mark.parametrize("height", [1.0, 1e4])
def test_a_violated_property_is_never_proved(height):
    network = hat([0.3, -0.7], height=height, steepness=1e6 * height)
    unsafe = case([-1] * 2, [1] * 2, (at_least(0, Fraction(9, 10)),))
    outcome, *_ = by_neurons(network, unsafe, timeout=1.0)
    assert not isinstance(outcome.verdict, Proved)


def test_a_maximum_is_split():
    # max(x, y) - (x + y) / 2 = |x - y| / 2 <= 1 on the box [-1, 1]^2.
    network = chain_of_maximum()
    proved, *_ = by_neurons(network, case([-1, -1], [1, 1], (at_least(0, Fraction(1001, 1000)),)))
    violated, *_ = by_neurons(network, case([-1, -1], [1, 1], (at_least(0, Fraction(999, 1000)),)))
    assert isinstance(proved.verdict, Proved)
    assert isinstance(violated.verdict, Violated)


def chain_of_maximum():
    from sutura.network.graph import Network, Node
    from sutura.network.read import Loaded

    nodes = (
        Node("image", ops.Reshape((1, 1, 2)), ("x",), "i"),
        Node("max", ops.MaxPool((1, 2), (1, 1), (0, 0, 0, 0), (1, 1)), ("i",), "m"),
        Node("flat", ops.Reshape((1,)), ("m",), "f"),
        Node("mean", dense([[0.5, 0.5]], [0.0]), ("x",), "h"),
        Node("out", ops.Subtract(), ("f", "h"), "y"),
    )
    shapes = {"x": (2,), "i": (1, 1, 2), "m": (1, 1, 1), "f": (1,), "h": (1,), "y": (1,)}
    return Loaded(Network("maximum", "x", "y", nodes, shapes, ""), None, 0.0)


def test_two_inequalities_that_exclude_each_other_are_refuted_together():
    network = loaded(12, dense(np.ones((2, 12)), [0, 0]), ops.Relu(), dense([[1, 0], [0, 1]], [0, 0]))
    both = (at_least(0, Fraction(6)), at_most(1, Fraction(5)))
    outcome, *_ = by_neurons(network, case([-1] * 12, [1] * 12, both))
    assert isinstance(outcome.verdict, Proved)


def test_a_box_without_a_float32_point_is_said_to_have_none():
    asked = case(["0.1"] + ["-1"] * 11, ["0.1"] + ["1"] * 11, (at_least(0, Fraction(-100)),))
    outcome, *_ = by_neurons(wide(12), asked)
    assert isinstance(outcome.verdict, Unknown)
    assert "no float32 input lies exactly in the box" in outcome.verdict.reason


def test_the_limit_is_obeyed_and_what_was_reached_is_told():
    network = wide(200, 150)
    seen = []
    asked = case([-1] * 200, [1] * 200, (at_least(0, Fraction(12)),))
    outcome, *_ = by_neurons(network, asked, timeout=2.0, listen=seen.append)
    assert outcome.account.seconds < 3.0
    assert isinstance(outcome.verdict, Unknown) and "timed out" in outcome.verdict.reason
    assert seen and 0 <= seen[-1].settled < 1
    assert outcome.account.bound is not None and outcome.account.bound < 0


def test_the_bound_told_rises_and_stays_below_what_is_attained():
    network, asked, seen = wide(120, 80), case([-1] * 120, [1] * 120, (at_least(0, Fraction(15)),)), []
    outcome, _, run = by_neurons(network, asked, timeout=4.0, listen=seen.append)
    bounds = [event.bound for event in seen if event.bound is not None]
    assert len(bounds) > 1 and bounds == sorted(bounds) and bounds[-1] > bounds[0]
    highest = run(single(np.random.default_rng(0).choice([-1, 1], (4096, 120)))).max()
    assert max(bounds) <= 15 - highest
    assert isinstance(outcome.verdict, Proved) or outcome.account.bound == bounds[-1]


def test_a_case_never_reached_leaves_the_bound_unknown():
    part = case([-1] * 200, [1] * 200, (at_least(0, Fraction(12)),))
    outcome, *_ = by_neurons(wide(200, 150), part, part, timeout=1.0)
    assert isinstance(outcome.verdict, Unknown) and outcome.account.bound is None


def test_an_empty_leaf_is_closed_though_its_bounds_are_infinite():
    program = lower(wide().network)
    region = Region(np.full((1, 40), -1.0), np.full((1, 40), 1.0))
    scene = program, region, crown(program, region), goal([(at_least(0, Fraction(5)),)], 1)
    stage = next(stages(scene, np.ones((1, 1), np.float32), 1.0, lambda: None))
    ends = np.full_like(stage.open.domain.low, np.inf)
    leaves = replace(stage.open, domain=Domain(ends, -ends))
    done = bounded(stage.problem, leaves, (ROOT,), leaves.take(slice(0, 0)), lambda: None)
    assert not len(done.open) and done.settled == 1.0


def test_results_do_not_depend_on_workers():
    asked = case([-0.35] * 40, [0.35] * 40, (at_least(0, Fraction(2)),))
    one, *_ = by_neurons(wide(), asked, workers=1)
    two, *_ = by_neurons(wide(), asked, workers=2)
    assert (type(one.verdict), one.account.boxes) == (type(two.verdict), two.account.boxes)
    assert one.account.boxes > 1


def test_exhausted_memory_halves_the_batch_and_says_so(monkeypatch):
    from sutura.verdict import neuron_search

    real, refused = neuron_search.advance, []

    def scarce(problem, batch, checkpoint):
        if len(batch) > 4:
            refused.append(len(batch))
            raise MemoryError
        return real(problem, batch, checkpoint)

    monkeypatch.setattr(neuron_search, "advance", scarce)
    seen = []
    asked = case([-0.35] * 40, [0.35] * 40, (at_least(0, Fraction(2)),))
    outcome, *_ = by_neurons(wide(), asked, listen=seen.append)
    assert isinstance(outcome.verdict, Proved)
    assert refused and any("out of memory: batches of" in e.note for e in seen)
    assert outcome.account.batch <= 4


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(MismatchError):
        by_neurons(wide(12), case([0] * 11, [1] * 11, (at_least(0, 1),)), decide=mismatched)


def mismatched(program, run, wanted, config):
    return decide_by_neurons(program, run, prop(11, 1, *wanted.cases), config)


@pytest.mark.parametrize(
    ("family", "network", "asked", "said"),
    [
        ("mnist_fc", "mnist-net_256x2", "prop_3_0.03", Proved),
        ("mnist_fc", "mnist-net_256x2", "prop_3_0.05", Violated),
        ("eran_mnist", "ffnnSIGMOID__Point_6x200", "mnist_spec_idx_7955_eps_0.01200", Proved),
        ("verivital_mnist_cnn", "Convnet_maxpool", "prop_2_0.004", Proved),
    ],
)
def test_verdicts_of_the_evaluation_data(shared_data, family, network, asked, said):
    folder = Path(shared_data) / "vnncomp" / family
    outcome = strategy.decide(
        lower((whole := load(folder / "onnx" / f"{network}.onnx")).network),
        runner(open_session(whole.original)),
        read_property(folder / "vnnlib" / f"{asked}.vnnlib.gz"),
        VerifyConfig(timeout=60, workers=1),
    )
    assert isinstance(outcome.verdict, said)
