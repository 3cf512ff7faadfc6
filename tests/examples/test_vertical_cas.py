"""The shipped example: its dynamic program, its committed files, and the script that wrote them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
sys.path.insert(0, str(FOLDER))

import advisory_network  # noqa: E402
import advisory_properties  # noqa: E402
import dynamic_program  # noqa: E402
import train  # noqa: E402

RULES = {rule.name: rule for rule in advisory_properties.RULES}


@pytest.fixture(scope="module")
def table() -> dynamic_program.Table:
    return dynamic_program.solve(dynamic_program.standard_grid())


@pytest.fixture(scope="module")
def taught(table: dynamic_program.Table) -> train.Lessons:
    return train.lessons(table)


@pytest.fixture(scope="module")
def committed() -> bytes:
    return (FOLDER / "vertical_cas.onnx").read_bytes()


def cost_at(table: dynamic_program.Table, h: float, v: float, tau: float) -> np.ndarray:
    return dynamic_program.interpolate(table, np.array([[h, v, tau]]))[0]


def test_last_second_by_hand(table: dynamic_program.Table) -> None:
    # At h = 100, v = 0, one second to go, an altitude a in [75, 100] is a near miss by (100 - a) / 25.
    # COC: drift -12 gives .40, .48, .56 (weights 1/4, 1/2, 1/4), drift 0 gives .08 for one gust in 4.
    coc = 0.25 * 0.48 + 0.5 * (0.25 * 0.08)
    # CLIMB1500 brings own aircraft 8.05 / 2 ft higher, towards the intruder.
    climb = 0.25 * (12 + 4.025) / 25 + 0.5 * 4.025 / 25
    expected = 0.002 + 0.25 * climb + 0.75 * coc
    assert cost_at(table, 100.0, 0.0, 1.0)[:2] == pytest.approx([coc, expected], abs=1e-12)


def test_far_away_costs_only_the_alert(table: dynamic_program.Table) -> None:
    assert cost_at(table, 800.0, 0.0, 1.0) == pytest.approx([0.0, 0.002, 0.002, 0.006, 0.006], abs=1e-15)


def test_table_is_symmetric_under_up_and_down(table: dynamic_program.Table) -> None:
    mirrored = table.cost[:, ::-1, ::-1][..., [0, 2, 1, 4, 3]]
    np.testing.assert_allclose(table.cost, mirrored, rtol=0, atol=1e-12)


def test_costs_stay_within_a_near_miss_and_its_alerts(table: dynamic_program.Table) -> None:
    assert table.cost.min() >= 0.0
    assert table.cost.min(axis=-1).max() <= 1.0 + 1e-12


@pytest.mark.parametrize("advisory", dynamic_program.ADVISORIES, ids=lambda a: a.name)
def test_transition_rows_are_probabilities(advisory: dynamic_program.Advisory) -> None:
    move = dynamic_program.transition(dynamic_program.standard_grid(), advisory)
    assert move.data.min() >= 0.0
    np.testing.assert_allclose(move.sum(axis=1), 1.0, atol=1e-12)


def test_display_costs_charge_alert_and_reversal() -> None:
    fees = dynamic_program.display_costs()
    assert fees[1].tolist() == pytest.approx([0.0, 0.002, 0.022, 0.006, 0.026])


def test_induction_refuses_other_time_steps() -> None:
    grid = dynamic_program.standard_grid()
    with pytest.raises(ValueError, match="steps of one second"):
        dynamic_program.solve(replace(grid, tau=grid.tau * 2))


def test_policy_looks_like_a_wedge(table: dynamic_program.Table) -> None:
    level = table.advisory[:, :, int(np.flatnonzero(table.grid.v == 0.0)[0])]
    alerting = (level > 0).sum(axis=1)
    assert alerting[14] > alerting[4] > alerting[1] > 0
    assert not alerting[31:].any()
    above, below = table.grid.h > 0, table.grid.h < 0
    assert set(np.unique(level[:, above])) == {0, 2, 4}
    assert set(np.unique(level[:, below])) == {0, 1, 3}


@pytest.mark.parametrize("name", RULES)
def test_table_obeys_the_rule(table: dynamic_program.Table, name: str) -> None:
    assert advisory_properties.table_margin(table, RULES[name]) > 0.0


def test_table_margin_sees_a_rule_that_is_broken(table: dynamic_program.Table) -> None:
    wide = replace(RULES["no_climb"], lower=(-10.0, -10.0, 4.0))
    assert advisory_properties.table_margin(table, wide) < 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "RULES", (wide,))
        with pytest.raises(SystemExit, match=r"no_climb.*breaks it"):
            train.check_table(table)


def test_committed_network_form(committed: bytes) -> None:
    model = onnx.load_from_string(committed)
    onnx.checker.check_model(model, full_check=True)
    assert len(committed) < 100_000
    assert (model.ir_version, model.opset_import[0].version) == (10, 17)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add", "Relu"] * 3 + ["MatMul", "Add"]
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    shapes = [value.type.tensor_type.shape for value in (model.graph.input[0], model.graph.output[0])]
    assert [(s.dim[0].dim_param, s.dim[1].dim_value) for s in shapes] == [("N", 3), ("N", 5)]


def test_committed_network_agrees_with_the_table(committed: bytes, taught: train.Lessons) -> None:
    found = train.agreement(committed, taught)
    assert found.everywhere >= train.LEAST_AGREEMENT
    assert found.alerting >= train.LEAST_ALERTING_AGREEMENT
    assert found.regret <= 2e-5


@pytest.mark.parametrize("name", RULES)
def test_committed_properties_are_those_of_the_rules(name: str) -> None:
    expected = advisory_properties.vnnlib(RULES[name]).encode("ascii")
    assert (FOLDER / f"{name}.vnnlib").read_bytes() == expected


def test_every_committed_property_has_a_rule() -> None:
    assert {path.stem for path in FOLDER.glob("*.vnnlib")} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_property_box_is_exactly_the_rule_box(name: str) -> None:
    rule, text = RULES[name], (FOLDER / f"{name}.vnnlib").read_text("ascii")
    for k, (centre, scale) in enumerate(zip(advisory_network.CENTRE, advisory_network.SCALE, strict=True)):
        for sign, bound in ((">=", rule.lower[k]), ("<=", rule.upper[k])):
            (written,) = re.findall(rf"\(assert \({sign} X_{k} (\S+)\)\)", text)
            assert Fraction(written) * Fraction(scale) + Fraction(centre) == Fraction(bound)


def test_unsafe_set_text_by_hand() -> None:
    assert advisory_properties.unsafe_text(RULES["no_climb"]) == (
        "(assert (or\n"
        "  (and (<= Y_1 Y_0) (<= Y_1 Y_2) (<= Y_1 Y_4))\n"
        "  (and (<= Y_3 Y_0) (<= Y_3 Y_2) (<= Y_3 Y_4))\n"
        "))"
    )
    alert = "".join(f"(assert (<= Y_0 Y_{k}))\n" for k in (1, 2, 3, 4))
    assert advisory_properties.unsafe_text(RULES["alert"]) + "\n" == alert


def test_alert_overlaps_the_senses_and_leaves_an_advisory() -> None:
    for other in ("no_climb", "no_descend"):
        one, two = RULES["alert"], RULES[other]
        assert np.all(np.maximum(one.lower, two.lower) < np.minimum(one.upper, two.upper))
        assert set(one.allowed) & set(two.allowed)


def test_sampling_finds_the_violations_that_the_readme_states(committed: bytes) -> None:
    rule = RULES[train.BROKEN]
    share = advisory_properties.violations(
        committed, rule, advisory_properties.sample(rule, 200_000, 1)
    ).mean()
    # The README says 0.53 %; five standard deviations of 200 000 samples are 0.08 %.
    assert "**0.53 %**" in (FOLDER / "README.md").read_text("utf-8")
    assert abs(share - 0.0053) < 0.0008


def test_a_tie_is_a_violation() -> None:
    flat = advisory_network.Layers((np.zeros((3, 5), np.float32),), (np.zeros(5, np.float32),))
    model = advisory_network.onnx_model(flat).SerializeToString()
    rule = RULES["alert"]
    assert advisory_properties.violations(model, rule, advisory_properties.sample(rule, 10, 0)).all()


def test_onnx_form_computes_the_same_network() -> None:
    rng = np.random.default_rng(5)
    layers = train.split(train.untrained(rng, np.ones(5, np.float32)))
    inputs = rng.uniform(-1, 1, (100, 3)).astype(np.float32)
    score = advisory_network.run_onnx(advisory_network.onnx_model(layers).SerializeToString(), inputs)
    np.testing.assert_allclose(score, advisory_network.activations(layers, inputs)[-1], rtol=1e-5, atol=1e-5)


def test_gradient_matches_finite_differences() -> None:
    rng = np.random.default_rng(3)
    parameters = tuple(p.astype(np.float64) for p in train.untrained(rng, np.ones(5, np.float32)))
    inputs, goal = rng.uniform(-1, 1, (20, 3)), rng.uniform(0, 1, (20, 5))

    def loss(values: tuple[np.ndarray, ...]) -> float:
        score = advisory_network.activations(train.split(values), inputs)[-1]
        return float(((score - goal) ** 2).sum(axis=1).mean())

    slopes = train.gradient(train.split(parameters), inputs, goal)
    for k, slope in enumerate(slopes):
        step = 1e-6 * rng.normal(size=slope.shape)
        up, down = (
            loss((*parameters[:k], parameters[k] + sign * step, *parameters[k + 1 :])) for sign in (1, -1)
        )
        assert (up - down) / 2 == pytest.approx(float((slope * step).sum()), rel=1e-4, abs=1e-12)


def test_short_training_learns_and_repeats(taught: train.Lessons) -> None:
    first, second = (train.fit(taught, 600, 0) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
    found = train.agreement(advisory_network.onnx_model(first).SerializeToString(), taught)
    # Always COC agrees on 83 % and on no alert at all.
    assert found.everywhere > 0.92
    assert found.alerting > 0.6


def test_a_poor_network_is_refused(taught: train.Lessons) -> None:
    poor = advisory_network.onnx_model(train.fit(taught, 20, 0)).SerializeToString()
    with pytest.raises(SystemExit, match="agreement below"):
        train.check_network(poor, taught)
