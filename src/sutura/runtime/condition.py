"""The properties as a guard tests them: tables of float32 numbers, compared and never computed with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from sutura.property.float32 import round_down, round_up
from sutura.property.spec import Conjunction, Inequality, Property, inequality_mask

MOST_COMPARED = 1 << 22
"""Comparisons of inputs with box sides made at once."""

LOWEST, HIGHEST = np.float32(-np.inf), np.float32(np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The boxes of all cases, rounded outward: they hold every point of a box however it is cast."""

    low: Float32[np.ndarray, "cases n"]
    high: Float32[np.ndarray, "cases n"]

    def holding(self, x: Float32[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch cases"]:
        """Which boxes each input lies in; not-a-number lies in none."""
        step = max(1, MOST_COMPARED // self.low.size)
        parts = [self._holding(x[i : i + step]) for i in range(0, len(x), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _holding(self, x: Float32[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch cases"]:
        wide = x[:, None]
        return np.logical_and.reduce((wide >= self.low) & (wide <= self.high), axis=2)


@dataclass(frozen=True, slots=True, eq=False)
class Unsafe:
    """An unsafe set: comparisons of two entries of [outputs, constants], ordered by conjunction.

    Literal k says entry[left[k]] < entry[right[k]], or <= where `weak[k]`; `sums` stand at their own places
    and are decided in exact arithmetic. `starts` are where conjunctions begin; `always` says that one is
    empty, so that every output is unsafe; `cases` are those that have this set.
    """

    left: Int64[np.ndarray, " literals"]
    right: Int64[np.ndarray, " literals"]
    weak: Bool[np.ndarray, " literals"] | None
    constants: Float32[np.ndarray, " constants"]
    sums: tuple[tuple[int, Inequality], ...]
    starts: Int64[np.ndarray, " conjunctions"]
    always: bool
    cases: Int64[np.ndarray, " k"]

    def holds(self, y: Float32[np.ndarray, "batch m"]) -> Bool[np.ndarray, " batch"]:
        """For each output whether it is unsafe; exact, and the same as `property.spec.unsafe_mask`."""
        if self.always:
            return np.ones(len(y), dtype=np.bool_)
        entries = y
        if len(self.constants):
            fixed = np.broadcast_to(self.constants, (len(y), len(self.constants)))
            entries = np.concatenate([y, fixed], axis=1)
        left, right = entries[:, self.left], entries[:, self.right]
        met = left < right
        if self.weak is not None:
            met |= self.weak & (left == right) & (abs(left) < HIGHEST)
        for at, inequality in self.sums:
            met[:, at] = inequality_mask(inequality, y)
        return np.logical_or.reduce(np.logical_and.reduceat(met, self.starts, axis=1), axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """All properties at once: the boxes of all cases, the unsafe sets, and the property of each case."""

    boxes: Boxes
    unsafe: tuple[Unsafe, ...]
    names: tuple[str, ...]

    def broken(
        self, inside: Bool[np.ndarray, "batch cases"], y: Float32[np.ndarray, "batch m"]
    ) -> Bool[np.ndarray, " batch"]:
        """Which outputs are unsafe in a case whose box holds their input (`inside`: see `Boxes.holding`)."""
        found = np.zeros(len(y), dtype=np.bool_)
        for unsafe in self.unsafe:
            found |= unsafe.holds(y) & inside[:, unsafe.cases].any(axis=1)
        return found

    def unsafe_somewhere(self, y: Float32[np.ndarray, " m"]) -> str:
        """The name of a property in which the output is unsafe for some input; empty where there is none."""
        bad = [u for u in self.unsafe if u.holds(y[None])[0]]
        return self.names[int(bad[0].cases[0])] if bad else ""

    def first_broken(self, inside: Bool[np.ndarray, " cases"], y: Float32[np.ndarray, " m"]) -> str:
        """The name of the first property that one output breaks; empty where it breaks none."""
        bad = [int(case) for u in self.unsafe if u.holds(y[None])[0] for case in u.cases if inside[case]]
        return self.names[min(bad)] if bad else ""


def conditions(properties: Sequence[Property]) -> Conditions:
    """The tables of some properties. Raises PropertyError where a bound lies beyond the float32 range."""
    cases = [case for prop in properties for case in prop.cases]
    names = tuple(prop.name for prop in properties for _ in prop.cases)
    hulls = [case.box.float32_hull() for case in cases]
    boxes = Boxes(np.stack([low for low, _ in hulls]), np.stack([high for _, high in hulls]))
    groups: dict[tuple[Conjunction, ...], list[int]] = {}
    for number, case in enumerate(cases):
        groups.setdefault(case.unsafe, []).append(number)
    outputs = properties[0].outputs
    return Conditions(boxes, tuple(_unsafe(u, n, outputs) for u, n in groups.items()), names)


def _unsafe(conjunctions: tuple[Conjunction, ...], cases: Sequence[int], outputs: int) -> Unsafe:
    constants: list[np.float32] = []
    left: list[int] = []
    right: list[int] = []
    weak: list[bool] = []
    sums: list[tuple[int, Inequality]] = []
    for inequality in itertools.chain.from_iterable(conjunctions):
        kind, a, b = _literal(inequality)
        if kind == _SUM:
            sums.append((len(left), inequality))
        for ends, end in ((left, a), (right, b)):
            if isinstance(end, int):
                ends.append(end)
            else:
                ends.append(outputs + len(constants))
                constants.append(end)
        weak.append(kind == _WEAK)
    starts = np.cumsum([0, *(len(c) for c in conjunctions)])[:-1]
    return Unsafe(
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(weak) if any(weak) else None,
        np.array(constants, np.float32),
        tuple(sums),
        starts.astype(np.int64),
        not all(conjunctions),
        np.array(cases, np.int64),
    )


def _literal(inequality: Inequality) -> tuple[str, int | np.float32, int | np.float32]:
    """What is compared with what: outputs by index, exact thresholds by the float32 numbers next to them."""
    match inequality.terms:
        case ((i, a), (j, b)) if a + b == 0 and inequality.bound == 0:
            small, large = (i, j) if a > 0 else (j, i)
            return _STRICT if inequality.strict else _WEAK, small, large
        case ((index, coefficient),):
            threshold = inequality.bound / coefficient
            if coefficient > 0:
                above = round_up(threshold) if inequality.strict else _next(round_down(threshold), HIGHEST)
                return _STRICT, index, above
            below = round_down(threshold) if inequality.strict else _next(round_up(threshold), LOWEST)
            return _STRICT, below, index
        case _:
            return _SUM, 0, 0


def _next(value: np.float32, towards: np.float32) -> np.float32:
    """The neighbouring float32 number; y <= v says the same as y < _next(v, inf)."""
    with np.errstate(over="ignore"):
        return np.float32(np.nextafter(value, towards))


_STRICT, _WEAK, _SUM = "<", "<=", "sum"
