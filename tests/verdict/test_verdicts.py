"""Verdicts on networks whose truth is known."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import ask, at_least, at_most, case, dense, hat, loaded, prop, rugged, single

from sutura.bounds.lower import lower
from sutura.errors import MismatchError, PropertyError
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session
from sutura.property.build import argmax_in, box, output_bound
from sutura.property.spec import Inequality, violates
from sutura.verdict import search
from sutura.verdict.frontier import advance
from sutura.verdict.outcome import Proved, Unknown, Violated
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig, decide

ULP = Fraction(1, 2**23)


def replayed(network, wanted, outcome):
    """The witness lies in the property and the runtime gives its output again."""
    witness = outcome.verdict.witness
    y = runner(open_session(write_onnx(network.network)))(witness.input[None])[0]
    return violates(wanted, witness.input, witness.output) and y.tobytes() == witness.output.tobytes()


@pytest.mark.parametrize("peak", [[0.3], [-0.9173], [0.25, -0.6], [0.11, 0.52]])
@pytest.mark.parametrize("steepness", [64.0, 3000.0])
def test_a_hidden_peak_is_found(peak, steepness):
    network = hat(peak, steepness=steepness)
    n = len(peak)
    unsafe = case([-1] * n, [1] * n, (at_least(0, Fraction(1, 2)),))
    outcome = ask(network, unsafe)
    assert isinstance(outcome.verdict, Violated)
    assert replayed(network, prop(n, 1, unsafe), outcome)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(-0.96875, 0.96875, width=32), min_size=1, max_size=3), st.integers(0, 5))
def test_a_violated_property_is_never_proved(peak, power):
    network = hat(peak, steepness=10.0**power)
    n = len(peak)
    outcome = ask(network, case([-1] * n, [1] * n, (at_least(0, Fraction(9, 10)),)), timeout=0.5)
    assert not isinstance(outcome.verdict, Proved)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(-0.96875, 0.96875, width=32), min_size=1, max_size=2), st.integers(0, 3))
def test_a_property_satisfied_with_margin_is_proved(peak, power):
    network = hat(peak, steepness=10.0**power)
    n = len(peak)
    outcome = ask(network, case([-1] * n, [1] * n, (at_least(0, Fraction(11, 10)),)))
    assert isinstance(outcome.verdict, Proved)
    assert outcome.account.proved_share == 1.0 and outcome.account.boxes >= 1


def zigzag(seed, kinks=12):
    """A piecewise linear function of one input on [-1, 1], and its exact maximum (at a kink or an end)."""
    random = np.random.default_rng(seed)
    places = np.sort(random.integers(-60, 60, kinks)) / 64.0
    heights = random.integers(-8, 9, kinks) / 2.0
    network = loaded(1, dense(np.ones((kinks, 1)), -places), ops.Relu(), dense([heights], [0.25]))
    at = np.array([-1.0, *places, 1.0])
    values = 0.25 + np.maximum(at[:, None] - places, 0) @ heights  # exact: dyadic numbers of few bits
    return network, Fraction(float(values.max()))


@pytest.mark.parametrize("seed", range(12))
def test_a_thousandth_beside_the_exact_maximum_decides(seed):
    network, maximum = zigzag(seed)
    above = ask(network, case([-1], [1], (at_least(0, maximum + Fraction(1, 1000)),)))
    below = ask(network, case([-1], [1], (at_least(0, maximum - Fraction(1, 1000)),)))
    assert isinstance(above.verdict, Proved)
    assert isinstance(below.verdict, Violated)


@pytest.mark.parametrize(
    ("bound", "strict", "expected"),
    [
        (1 - ULP / 2, False, Violated),  # the float32 number before one is reached
        (1 - ULP / 2, True, Violated),
        (1, False, Violated),  # Y >= 1 at x = 1
        (1, True, Proved),  # Y > 1 nowhere, exactly
        (1 + ULP, False, Proved),
        (1 + Fraction(1, 10**30), False, Proved),
        (1 - Fraction(1, 10**30), True, Violated),
    ],
)
def test_one_ulp_and_strictness_where_nothing_is_rounded(bound, strict, expected):
    outcome = ask(loaded(1, ops.Relu()), case([-1], [1], (at_least(0, bound, strict),)))
    assert isinstance(outcome.verdict, expected)


@pytest.mark.parametrize(
    ("bound", "expected"), [(1 - ULP, Violated), (1 + ULP / 2, Unknown), (1 + 16 * ULP, Proved)]
)
def test_one_ulp_where_an_execution_may_round(bound, expected):
    # y = 0.75 x0 + 0.25 x1: one at the corner, but an execution may round; one ulp above one is left open.
    network = loaded(2, dense([[0.75, 0.25]], [0.0]))
    outcome = ask(network, case([1, 1], [1, 1], (at_least(0, bound),)))
    assert isinstance(outcome.verdict, expected)
    if expected is Unknown:
        assert outcome.verdict.reason == "1 single points lie within float32 rounding of the unsafe set"


def test_coefficients_are_not_rounded_to_one():
    # (1 + 1e-20) y > 1 holds at y = 1, though its coefficient is 1 in float64.
    coefficient = -(1 + Fraction(1, 10**20))
    tiny = Inequality(((0, coefficient),), Fraction(-1), strict=True)
    assert isinstance(ask(loaded(1, ops.Relu()), case([0], [1], (tiny,))).verdict, Violated)
    # -(1 + 1e-20) y < -1 has no float32 y below one either, so [0, 1) without its end is safe.
    before = [0], [float(np.nextafter(np.float32(1), np.float32(0)))]
    assert isinstance(ask(loaded(1, ops.Relu()), case(*before, (tiny,))).verdict, Proved)


@pytest.mark.parametrize("scale", [Fraction(2) ** 2000, Fraction(1, 10) ** 400, Fraction(1, 3)])
def test_the_scale_of_an_inequality_does_not_matter(scale):
    def wanted(bound):
        return case([0], [1], (Inequality(((0, -scale),), -scale * Fraction(bound)),))

    assert isinstance(ask(loaded(1, ops.Relu()), wanted("1.25")).verdict, Proved)
    assert isinstance(ask(loaded(1, ops.Relu()), wanted("0.75")).verdict, Violated)


def test_coefficients_too_far_apart_are_refused():
    far = Inequality(((0, Fraction(1)), (1, Fraction(1, 2**600))), Fraction(0))
    with pytest.raises(PropertyError, match=r"differ by more than 2\^500"):
        ask(loaded(2, ops.Relu()), case([0, 0], [1, 1], (far,)))


@pytest.mark.parametrize(("n", "omega"), [(3, 2.0**25), (34, 2.0**20), (66, 2.0**30)])
def test_what_only_some_orders_of_summation_break_is_never_proved(n, omega):
    # Over the reals y = 0 everywhere; ONNX Runtime loses the one among the large numbers and returns 5.
    row = -single([[omega, *[1 / (n - 2)] * (n - 2), -omega]])
    ones = dense(np.zeros((n, 1)), np.ones(n))
    network = loaded(1, ones, ops.Relu(), dense(row, [0.5]), ops.Relu(), dense([[10.0]], [0.0]))
    executed = runner(open_session(write_onnx(network.network)))(single([[0.5]]))[0, 0]
    outcome = ask(network, case([0], [1], (at_least(0, 1),)), timeout=1.0)
    assert not isinstance(outcome.verdict, Proved)
    assert isinstance(outcome.verdict, Violated) == (executed >= 1)


def test_the_second_of_several_cases_is_violated():
    network = loaded(2, dense([[1, 1], [1, -1]], [0, 0]))
    safe = case([0, 0], [1, 1], (at_least(0, 3),))
    unsafe = case(
        [0, 0], [1, 1], (at_least(0, 3),), (at_least(1, Fraction(1, 2)), at_most(0, Fraction(3, 4)))
    )
    outcome = ask(network, safe, unsafe)
    assert isinstance(outcome.verdict, Violated) and outcome.verdict.witness.case == 1
    assert replayed(network, prop(2, 2, safe, unsafe), outcome)
    both = ask(network, safe, safe)
    assert isinstance(both.verdict, Proved) and both.account.proved_share == 1.0


def test_a_case_left_open_is_not_forgotten():
    network = loaded(2, dense([[0.75, 0.25]], [0.0]))
    at_one = case([1, 1], [1, 1], (at_least(0, 1 + ULP / 2),))
    safe = case([0, 0], [1, 1], (at_least(0, 3),))
    for order in ((at_one, safe), (safe, at_one)):
        assert isinstance(ask(network, *order).verdict, Unknown)


def test_a_box_is_safe_only_where_every_conjunction_is_refuted():
    # The peak is too narrow for the attack, and the second conjunction is refuted everywhere.
    network = hat([0.25, -0.6], steepness=3000.0)
    outcome = ask(network, case([-1, -1], [1, 1], (at_least(0, Fraction(1, 2)),), (at_least(0, 5),)))
    assert isinstance(outcome.verdict, Violated) and outcome.account.boxes > 0


def test_a_conjunction_needs_all_of_its_inequalities():
    # y = (x, -x) on [-1, 1]: each output exceeds 1/2 somewhere, never both at once.
    network = loaded(1, dense([[1], [-1]], [0, 0]))
    half = Fraction(1, 2)
    both = case([-1], [1], (at_least(0, half), at_least(1, half)))
    either = case([-1], [1], (at_least(0, half),), (at_least(1, half),))
    assert isinstance(ask(network, both).verdict, Proved)
    assert isinstance(ask(network, either).verdict, Violated)


def test_an_empty_conjunction_means_that_any_output_is_unsafe():
    network = loaded(1, ops.Relu())
    for unsafe in [((),), ((at_least(0, 5),), ())]:
        outcome = ask(network, case([-1], [1], *unsafe))
        assert isinstance(outcome.verdict, Violated)


def test_without_a_conjunction_everything_is_safe():
    outcome = ask(loaded(1, ops.Relu()), case([-1], [1]))
    assert isinstance(outcome.verdict, Proved) and outcome.account.proved_share == 1.0


def test_a_box_between_two_float32_numbers_has_no_witness_but_covers_its_neighbours():
    # No float32 number lies in [1 + ulp/4, 1 + ulp/2]; cast to float32, its numbers become 1 or 1 + ulp.
    ends = [1 + ULP / 4], [1 + ULP / 2]
    network = loaded(1, ops.Relu())
    assert isinstance(ask(network, case(*ends, (at_least(0, 1),))).verdict, Unknown)
    assert isinstance(ask(network, case(*ends, (at_least(0, 1 + ULP),))).verdict, Unknown)
    assert isinstance(ask(network, case(*ends, ())).verdict, Unknown)
    assert isinstance(ask(network, case(*ends, (at_least(0, 1 + 2 * ULP),))).verdict, Proved)


def test_witnesses_lie_in_decimal_boxes():
    # 0.1 is no float32 number; the nearest one lies outside the box.
    network = loaded(1, ops.Relu())
    unsafe = case(["0"], ["0.1"], (at_least(0, Fraction("0.0999")),))
    outcome = ask(network, unsafe)
    assert isinstance(outcome.verdict, Violated)
    assert Fraction(float(outcome.verdict.witness.input[0])) <= Fraction("0.1")


def test_overflow_is_never_proved():
    network = loaded(1, dense([[3e38]], [0]), ops.Relu(), dense([[0.0]], [0]))
    outcome = ask(network, case([0], [100], (at_least(0, 1),)), timeout=2.0)
    assert isinstance(outcome.verdict, Unknown)


@pytest.mark.parametrize("operator", [ops.Sigmoid(), ops.Tanh()])
def test_curves(operator):
    network = loaded(1, dense([[2.0]], [0.5]), operator)
    top = float(1 / (1 + np.exp(-2.5))) if isinstance(operator, ops.Sigmoid) else float(np.tanh(2.5))
    above = ask(network, case([-1], [1], (at_least(0, Fraction(top) + Fraction(1, 10**5)),)))
    below = ask(network, case([-1], [1], (at_least(0, Fraction(top) - Fraction(1, 10**5)),)))
    assert isinstance(above.verdict, Proved) and isinstance(below.verdict, Violated)


def test_a_built_property_is_decided():
    network = loaded(2, dense([[1, 0], [0, 1]], [0, 0]))
    apart = box([2, 0], [3, 1])
    assert isinstance(decided(network, argmax_in(apart, [0], outputs=2)), Proved)
    assert isinstance(decided(network, argmax_in(apart, [1], outputs=2)), Violated)
    assert isinstance(decided(network, output_bound(apart, 1, upper="1.001", outputs=2)), Proved)


def decided(network, wanted):
    session = open_session(write_onnx(network.network))
    return decide(
        lower(network.network), runner(session), wanted, VerifyConfig(timeout=10, workers=1)
    ).verdict


def test_sizes_must_fit():
    network = loaded(2, ops.Relu())
    with pytest.raises(
        MismatchError, match="property 'planted' speaks of 3 inputs and 2 outputs, but the network has 2"
    ):
        decided(network, prop(3, 2, case([0] * 3, [1] * 3, (at_least(0, 1),))))


def test_no_time_gives_unknown():
    outcome = ask(hat([0.3]), case([-1], [1], (at_least(0, 2),)), timeout=0.0)
    assert outcome.verdict == Unknown("timed out after 0 s")


def test_the_memory_limit_gives_unknown():
    # Ten inputs, one tiny hat: many boxes wait.
    network = hat([0.3] * 6, steepness=1000.0)
    wanted = prop(6, 1, case([-1] * 6, [1] * 6, (at_least(0, Fraction(999, 1000)),)))
    session = open_session(write_onnx(network.network))
    config = VerifyConfig(timeout=10, workers=1, waiting=20)
    outcome = decide(lower(network.network), runner(session), wanted, config)
    assert outcome.verdict == Unknown("more than 20 boxes wait: the memory limit of the search")


def test_progress_counts_up():
    heard = []
    network = hat([0.3, 0.21, -0.41, 0.1, 0.55], steepness=3000.0)
    unsafe = case([-1] * 5, [1] * 5, (at_least(0, Fraction(1001, 1000)),))
    outcome = ask(network, unsafe, listen=heard.append)
    assert isinstance(outcome.verdict, Proved) and len(heard) > 2
    assert [p.boxes for p in heard] == sorted(p.boxes for p in heard)
    assert [p.settled for p in heard] == sorted(p.settled for p in heard)
    assert all(p.bound < 0 for p in heard[:-1]) and heard[-1].bound is outcome.account.bound is None
    assert (heard[-1].boxes, heard[-1].waiting, heard[-1].settled) == (outcome.account.boxes, 0, 1.0)


def test_an_open_search_says_its_best_bound():
    # The margin at the peak is -0.1; a bound of what is open cannot be better.
    network = hat([0.3] * 6, steepness=1000.0)
    wanted = prop(6, 1, case([-1] * 6, [1] * 6, (at_least(0, Fraction(9, 10)),)))
    config = VerifyConfig(timeout=10, workers=1, waiting=20)
    quiet = runner(open_session(write_onnx(network.network)))
    outcome = decide(lower(network.network), lambda x: quiet(np.zeros_like(x)), wanted, config)
    assert isinstance(outcome.verdict, Unknown)
    assert outcome.account.bound <= -0.1 + 1e-4


def test_chunks_are_halved_where_memory_runs_out(monkeypatch):
    network, unsafe = rugged(), case([-1] * 4, [1] * 4, (at_least(0, Fraction(65, 100)),))
    whole, heard = ask(network, unsafe), []

    def scarce(program, aim, batch, checkpoint):
        if len(batch.region) > 1:
            raise MemoryError
        return advance(program, aim, batch, checkpoint)

    monkeypatch.setattr(search, "advance", scarce)
    outcome = ask(network, unsafe, listen=heard.append)
    assert isinstance(outcome.verdict, Proved) and whole.account.batch == 32
    assert outcome.account.batch == 1 and [p.note for p in heard if p.note] == [
        f"memory ran out; chunks of {n} now" for n in (16, 8, 4, 2, 1)
    ]
    monkeypatch.setattr(search, "advance", _out_of_memory)
    assert ask(network, unsafe).verdict == Unknown("memory ran out with a single box")


def _out_of_memory(*_):
    raise MemoryError


def facts(outcome):
    verdict = outcome.verdict
    found = (
        (verdict.witness.input.tobytes(), verdict.witness.output.tobytes())
        if isinstance(verdict, Violated)
        else ()
    )
    return type(verdict), found, outcome.account.boxes, outcome.account.proved_share


PEAK = [0.3, 0.21, -0.41, 0.1, 0.55]


@pytest.mark.parametrize(
    ("network", "bound"),
    [(hat(PEAK, steepness=3000.0), Fraction(1, 2)), (rugged(), Fraction(63, 100))],
    ids=["violated", "proved"],
)
def test_results_do_not_depend_on_the_number_of_workers(network, bound, monkeypatch):
    # Chunks of two, so that there is work for more than one worker.
    monkeypatch.setattr(search, "CHUNK", 2)
    n = network.network.input_size
    runs = [ask(network, case([-1] * n, [1] * n, (at_least(0, bound),)), workers=w) for w in (1, 2, 3)]
    assert facts(runs[0]) == facts(runs[1]) == facts(runs[2])


def test_a_timeout_is_obeyed_with_many_conjunctions():
    # 400 classes: the attack alone would take longer.
    random = np.random.default_rng(0)
    hidden = dense(random.normal(size=(400, 400)), random.normal(size=400))
    network = loaded(400, hidden, ops.Relu(), dense(random.normal(size=(400, 400)), random.normal(size=400)))
    wanted = argmax_in(box([-1] * 400, [1] * 400), [0], outputs=400)
    started = time.monotonic()
    session = open_session(write_onnx(network.network))
    outcome = decide(lower(network.network), runner(session), wanted, VerifyConfig(timeout=0.3, workers=1))
    assert time.monotonic() - started < 3.0
    assert isinstance(outcome.verdict, Unknown | Violated)
