"""What a repair changed, by sampling: estimates, printed beside what the certificate proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as Choice

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.optimize import nnls

from sutura.bounds.program import Program
from sutura.gates.safe_set import SafeSet, alternatives, safe_set
from sutura.property.spec import Case, Property, unsafe_mask
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.goal import goal
from sutura.verdict.replay import Runner

Decision = Choice["argmax", "argmin"]

LARGEST = float(np.finfo(np.float32).max)
STREWN = 10
"""Points around each end of an attack."""

MOST_PROJECTED = 2000
"""Wrong outputs for which the exact projection is computed."""

TOGETHER = 32
"""Coordinates compared at a time."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Shares (0 to 1) and mean changes over uniform samples of one property's boxes.

    `violating_*`: unsafe outputs. Of inputs that were right before: `identical` (same bits), `agreeing` (same
    decision) and `change_right` (mean absolute change of a score). Of the first MOST_PROJECTED inputs that
    were wrong: `change_wrong`, and `nearest_wrong`, that of the exact Euclidean projection of their outputs
    on the safe set. `change_all` is over all samples, and `change_most` the largest of a score.
    Not-a-number where no sample is of the kind.
    """

    property: str
    samples: int
    violating_before: float
    violating_after: float
    identical: float
    agreeing: float
    change_right: float
    change_wrong: float
    nearest_wrong: float
    change_all: float
    change_most: float = float("nan")


@dataclass(frozen=True, slots=True)
class Outside:
    """Samples of a box around the properties' boxes, less the boxes themselves: share with identical bits,
    share with the same decision, mean and largest absolute change of a score."""

    samples: int
    identical: float
    agreeing: float = float("nan")
    change: float = float("nan")
    change_most: float = float("nan")


@dataclass(frozen=True, slots=True)
class Attacked:
    """How many of the points that a gradient search on the original network ends in, and of points strewn
    around them, are unsafe before and after."""

    property: str
    points: int
    violating_before: int
    violating_after: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """Accuracy on a labelled data set before and after, the share lost of what was right (drawdown), and the
    share of samples with identical bits."""

    samples: int
    accuracy_before: float
    accuracy_after: float
    drawdown: float
    identical: float


def inside(
    networks: tuple[Runner, Runner],
    prop: Property,
    properties: Sequence[Property],
    *,
    samples: int = 100_000,
    seed: int = 0,
    decision: Decision = "argmax",
) -> Inside:
    """Compare two networks on samples of a property's boxes (an equal number in each).

    An input is right where its output breaks none of `properties`, all those that were repaired together.
    """
    each = max(1, samples // len(prop.cases))
    x = np.concatenate([uniform(*c.box.float32_hull(), each, seed + at) for at, c in enumerate(prop.cases)])
    was, now = (network(x) for network in networks)
    wrong, still = violating([prop], x, was), violating([prop], x, now)
    right = ~violating(properties, x, was)
    moved = abs(now.astype(np.float64) - was)
    change, first = moved.mean(axis=1), np.flatnonzero(wrong)[:MOST_PROJECTED]
    kept = getattr(was, decision)(axis=1) == getattr(now, decision)(axis=1)
    return Inside(
        prop.name,
        len(x),
        float(wrong.mean()),
        float(still.mean()),
        _mean(same_bits(was, now)[right]),
        _mean(kept[right]),
        _mean(change[right]),
        _mean(change[first]),
        _mean(nearest_possible(properties, x[first], was[first])),
        float(change.mean()),
        float(moved.max()),
    )


def violating(
    properties: Sequence[Property], x: Float32[np.ndarray, "k n"], y: Float32[np.ndarray, "k m"]
) -> Bool[np.ndarray, " k"]:
    """Which inputs lie in a box of a property and have an output unsafe there; exact."""
    wrong = np.zeros(len(x), bool)
    for case in _met(properties, x):
        wrong |= _within(case, x) & unsafe_mask(case, y)
    return wrong


def _met(properties: Sequence[Property], x: Float32[np.ndarray, "k n"]) -> list[Case]:
    """The cases whose boxes meet the hull of the points; no point lies in any other."""
    if not len(x):
        return []
    first, last = x.min(axis=0), x.max(axis=0)
    cases = [case for prop in properties for case in prop.cases]
    hulls = [case.box.float32_hull() for case in cases]
    return [
        case
        for case, (low, high) in zip(cases, hulls, strict=True)
        if (low <= last).all() and (first <= high).all()
    ]


def _within(case: Case, x: Float32[np.ndarray, "k n"]) -> Bool[np.ndarray, " k"]:
    """Which points lie in the box; few coordinates at a time, as most points leave it by the first."""
    low, high = case.box.float32_hull()
    left = np.arange(len(x))
    for at in range(0, len(low), TOGETHER):
        part = slice(at, at + TOGETHER)
        left = left[((x[left, part] >= low[part]) & (x[left, part] <= high[part])).all(axis=1)]
        if not len(left):
            break
    held = np.zeros(len(x), bool)
    held[left] = True
    return held


def same_bits(a: Float32[np.ndarray, "k m"], b: Float32[np.ndarray, "k m"]) -> Bool[np.ndarray, " k"]:
    """Which rows are the same float32 numbers, bit for bit."""
    return np.asarray((a.view(np.int32) == b.view(np.int32)).all(axis=1))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def nearest_possible(
    properties: Sequence[Property], x: Float32[np.ndarray, "k n"], y: Float32[np.ndarray, "k m"]
) -> Float64[np.ndarray, " k"]:
    """For each output, the mean change to the nearest one safe for all boxes that its input lies in."""
    changes = np.zeros(len(x))
    cases = _met(properties, x)
    if not cases:
        return changes
    held = np.stack([_within(case, x) for case in cases], axis=1)
    for active in np.unique(held, axis=0):
        rows = (held == active).all(axis=1)
        safe = safe_set(c for case, on in zip(cases, active, strict=True) if on for c in case.unsafe)
        changes[rows] = nearest_changes(y[rows], safe)
    return changes


def uniform(
    low: Float32[np.ndarray, " n"], high: Float32[np.ndarray, " n"], count: int, seed: int
) -> Float32[np.ndarray, "count n"]:
    """Uniform float32 points of a box."""
    share = np.random.default_rng(seed).random((count, len(low)))
    return np.clip((low + share * (high.astype(np.float64) - low)).astype(np.float32), low, high)


def nearest_changes(outputs: Float32[np.ndarray, "k n"], safe: SafeSet) -> Float64[np.ndarray, " k"]:
    """Mean absolute score change of the exact Euclidean projection of each output on the safe set.

    Each convex piece is a least-distance program solved by non-negative least squares (Lawson and Hanson,
    ch. 23), apart from the formulas of the gate.
    """
    n = outputs.shape[1]
    pieces = [
        (np.array([x.row(n) for x in piece]).reshape(-1, n), np.array([float(x.bound) for x in piece]))
        for piece in alternatives(safe)
    ]
    return np.array([abs(_nearest(y.astype(np.float64), pieces)).mean() for y in outputs])


def _nearest(
    y: Float64[np.ndarray, " n"], pieces: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Float64[np.ndarray, " n"]:
    """The shortest of the moves into the pieces; one whose most violated inequality alone lies farther than
    a move already found is passed over."""
    needs = [bounds - rows @ y for rows, bounds in pieces]
    least = [
        float(np.max(need / np.linalg.norm(rows, axis=1), initial=0.0))
        for need, (rows, _) in zip(needs, pieces, strict=True)
    ]
    best, shortest = np.full(len(y), np.nan), np.inf
    for at in np.argsort(least, kind="stable"):
        if least[at] >= shortest:
            break
        move = _least_distance(pieces[at][0], needs[at])
        if move is not None and np.linalg.norm(move) < shortest:
            best, shortest = move, float(np.linalg.norm(move))
    return best


def _least_distance(
    rows: Float64[np.ndarray, "k n"], need: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " n"] | None:
    """The shortest d with rows @ d >= need; None where there is none."""
    scale = max(float(abs(need).max(initial=0.0)), 1e-300)
    system = np.vstack([rows.T, need / scale])
    target = np.zeros(len(system))
    target[-1] = 1.0
    weights, gap = nnls(system, target)
    if gap < 1e-9:
        return None
    rest = system @ weights - target
    return -rest[:-1] / rest[-1] * scale


def outside(
    networks: tuple[Runner, Runner],
    properties: Sequence[Property],
    *,
    samples: int = 100_000,
    seed: int = 0,
    decision: Decision = "argmax",
) -> Outside:
    """Compare bits on samples around the boxes (their hull, three times as wide), leaving the boxes out."""
    hulls = [case.box.float32_hull() for p in properties for case in p.cases]
    before, after = networks
    low = np.min([h[0] for h in hulls], axis=0).astype(np.float64)
    high = np.max([h[1] for h in hulls], axis=0).astype(np.float64)
    reach = np.maximum(high - low, 1e-3)
    first, last = (np.clip(v, -LARGEST, LARGEST).astype(np.float32) for v in (low - reach, high + reach))
    x = uniform(first, last, samples, seed)
    for case in (case for p in properties for case in p.cases):
        x = x[~_within(case, x)]
    if not len(x):
        return Outside(0, float("nan"))
    was, now = before(x), after(x)
    moved = abs(now.astype(np.float64) - was)
    kept = getattr(was, decision)(axis=1) == getattr(now, decision)(axis=1)
    return Outside(
        len(x), float(same_bits(was, now).mean()), float(kept.mean()), float(moved.mean()), float(moved.max())
    )


def attacked(
    program: Program,
    networks: tuple[Runner, Runner],
    properties: Sequence[Property],
    *,
    starts: int = 64,
    seed: int = 0,
) -> list[Attacked]:
    """Attack the original network, whose lowered form is `program`, and put both to the points found."""
    found: list[Attacked] = []
    for prop in properties:
        x = np.concatenate([strewn(program, case, prop.outputs, starts, seed) for case in prop.cases])
        counts = (int(violating([prop], x, network(x)).sum()) for network in networks)
        found.append(Attacked(prop.name, len(x), *counts))
    return found


def strewn(program: Program, case: Case, outputs: int, starts: int, seed: int) -> Float32[np.ndarray, "k n"]:
    """Where gradient search for a witness ends, and points at a thousandth of the box's width around."""
    low, high = (v.astype(np.float64) for v in case.box.float32_hull())
    aim = goal(case.unsafe, outputs)
    near = attack(program, aim, low, high, AttackConfig(starts=starts, seed=seed))
    noise = np.random.default_rng(seed).normal(0, 1e-3, (STREWN, *near.shape)) * (high - low)
    around = np.clip(near + noise, low, high).reshape(-1, len(low))
    return np.concatenate([near, around]).astype(np.float32)


def labelled(
    networks: tuple[Runner, Runner],
    x: Float32[np.ndarray, "k n"],
    y: Int64[np.ndarray, " k"],
    decision: Decision = "argmax",
) -> Labelled:
    """Compare two networks on a labelled data set."""
    was, now = (network(x) for network in networks)
    right, still = (getattr(out, decision)(axis=1) == y for out in (was, now))
    lost = float((right & ~still).sum()) / max(1, int(right.sum()))
    return Labelled(len(x), float(right.mean()), float(still.mean()), lost, float(same_bits(was, now).mean()))
