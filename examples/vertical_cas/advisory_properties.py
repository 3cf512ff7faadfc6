"""What every advisory network must obey: boxes of states, and the advisories that are unsafe in each.

A property is stated in physical units here and written as VNN-LIB 1.0 in the network's normalised inputs. It
holds for the dynamic program's own table, which is checked, so a network that breaks it has learned wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from advisory_network import CENTRE, SCALE, normalise, run_onnx
from dynamic_program import ADVISORIES, Grid, Table, interpolate
from jaxtyping import Bool, Float64


@dataclass(frozen=True, slots=True)
class Rule:
    """In the closed box from `lower` to `upper`, (h [ft], v [ft/s], tau [s]), no `forbidden` advisory.

    `forbidden` are indices into ADVISORIES; a tie for the lowest score with a forbidden one is unsafe too.
    """

    name: str
    meaning: str
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    forbidden: tuple[int, ...]

    @property
    def allowed(self) -> tuple[int, ...]:
        """Indices of the advisories that are safe in the box."""
        return tuple(i for i in range(len(ADVISORIES)) if i not in self.forbidden)


def vnnlib(rule: Rule) -> str:
    """The rule as VNN-LIB 1.0 text, which states the violation."""
    names = ", ".join(f"Y_{i} {advisory.name}" for i, advisory in enumerate(ADVISORIES))
    lines = [f"; {rule.name}: {rule.meaning}", f"; {units(rule)}", f"; Lowest score = advisory: {names}", ""]
    lines += [f"(declare-const X_{k} Real)" for k in range(len(SCALE))]
    lines += [f"(declare-const Y_{k} Real)" for k in range(len(ADVISORIES))]
    lines += ["", "; the box"]
    for k in range(len(SCALE)):
        low, high = ((end[k] - CENTRE[k]) / SCALE[k] for end in (rule.lower, rule.upper))
        lines += [f"(assert (>= X_{k} {low!r}))", f"(assert (<= X_{k} {high!r}))"]
    lines += ["", "; unsafe: a forbidden advisory scores no higher than every allowed one", unsafe_text(rule)]
    return "\n".join(lines) + "\n"


def unsafe_text(rule: Rule) -> str:
    """The assertions on the outputs: an OR over the forbidden, each the AND of beating every allowed one."""
    beats = [[f"(<= Y_{bad} Y_{good})" for good in rule.allowed] for bad in rule.forbidden]
    if len(beats) == 1:
        return "\n".join(f"(assert {inequality})" for inequality in beats[0])
    arms = "\n".join(f"  (and {' '.join(arm)})" for arm in beats)
    return f"(assert (or\n{arms}\n))"


def units(rule: Rule) -> str:
    """The box in physical units, on one line."""
    names = ("h", "v", "tau"), ("ft", "ft/s", "s")
    spans = zip(*names, rule.lower, rule.upper, strict=True)
    return ", ".join(f"{name} in [{low:g}, {high:g}] {unit}" for name, unit, low, high in spans)


def table_margin(table: Table, rule: Rule) -> float:
    """How much more the cheapest forbidden advisory costs than the cheapest allowed, at worst in the box.

    Looks at every grid point in the box, at its faces and corners, and three times as densely between grid
    points, where the table is interpolated. The table obeys the rule where this is above zero.
    """
    h, v, tau = np.meshgrid(*lattice(table.grid, rule), indexing="ij")
    cost = interpolate(table, np.stack([h.ravel(), v.ravel(), tau.ravel()], axis=1))
    return float((cost[:, rule.forbidden].min(axis=1) - cost[:, rule.allowed].min(axis=1)).min())


def lattice(grid: Grid, rule: Rule) -> list[Float64[np.ndarray, " n"]]:
    """Where `table_margin` looks, axis by axis."""
    places = []
    for axis, low, high in zip((grid.h, grid.v, grid.tau), rule.lower, rule.upper, strict=True):
        count = 1 + int(np.ceil(3 * (high - low) / (axis[1] - axis[0])))
        nodes = axis[(axis >= low) & (axis <= high)]
        places.append(np.union1d(nodes, np.linspace(low, high, count)))
    return places


def violations(model: bytes, rule: Rule, states: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """At which of the states (all in the rule's box) the ONNX network's scores are unsafe."""
    score = run_onnx(model, normalise(states))
    return score[:, rule.forbidden].min(axis=1) <= score[:, rule.allowed].min(axis=1)


def sample(rule: Rule, count: int, seed: int) -> Float64[np.ndarray, "n 3"]:
    """States drawn uniformly from the rule's box."""
    return np.random.default_rng(seed).uniform(rule.lower, rule.upper, (count, len(rule.lower)))


COC, CLIMB, DESCEND, STRONG_CLIMB, STRONG_DESCEND = range(len(ADVISORIES))

RULES = (
    Rule(
        name="no_climb",
        meaning="the intruder is just above and we do not climb: never climb towards it",
        lower=(10.0, -10.0, 4.0),
        upper=(150.0, 0.0, 24.0),
        forbidden=(CLIMB, STRONG_CLIMB),
    ),
    Rule(
        name="no_descend",
        meaning="the intruder is just below and we do not descend: never descend towards it",
        lower=(-150.0, 0.0, 4.0),
        upper=(-10.0, 10.0, 24.0),
        forbidden=(DESCEND, STRONG_DESCEND),
    ),
    Rule(
        name="alert",
        meaning="the intruder is level with us and near in time: never clear of conflict",
        lower=(-100.0, -5.0, 6.0),
        upper=(100.0, 5.0, 20.0),
        forbidden=(COC,),
    ),
    Rule(
        name="clear",
        meaning="the intruder is well above and we do not climb: nothing but clear of conflict",
        lower=(250.0, -40.0, 1.0),
        upper=(800.0, 0.0, 32.0),
        forbidden=(CLIMB, DESCEND, STRONG_CLIMB, STRONG_DESCEND),
    ),
)
