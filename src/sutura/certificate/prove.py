"""Whether no output over a box is unsafe: some inequality of each unsafe conjunction never holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from sutura.certificate.bound import Boxes, Sweep, lowest, magnitude, sweep
from sutura.certificate.errors import CertificateError
from sutura.certificate.layers import Float, Program
from sutura.certificate.rounding import SLACK
from sutura.certificate.vnnlib import Case, Inequality
from sutura.certificate.wire import Array


@dataclass(frozen=True, slots=True, eq=False)
class Goals:
    """The inequalities of a case in float64: row by row, c . y - b must be shown to be above zero.

    `members` are, by conjunction, the numbers of its inequalities.
    """

    inequalities: tuple[Inequality, ...]
    members: tuple[tuple[int, ...], ...]
    coefficients: Float
    bounds: Float


def goals_of(case: Case, outputs: int) -> Goals:
    """The goals of a case; CertificateError where a coefficient is beyond float64."""
    numbers: dict[Inequality, int] = {}
    members = tuple(
        tuple(numbers.setdefault(inequality, len(numbers)) for inequality in conjunction)
        for conjunction in case.unsafe
    )
    if len(numbers) * outputs > MAX_ENTRIES:
        raise CertificateError(
            f"a case has {len(numbers)} inequalities of {outputs} outputs; too many to bound"
        )
    coefficients = np.zeros((len(numbers), outputs))
    try:
        for inequality, at in numbers.items():
            for index, factor in inequality.terms:
                coefficients[at, index] = float(factor)
        bounds = np.array([float(inequality.bound) for inequality in numbers])
    except OverflowError:
        raise CertificateError("a number of the property is beyond the float64 range") from None
    return Goals(tuple(numbers), members, coefficients, bounds)


def proved(program: Program, boxes: Boxes, goals: Goals) -> Array:
    """By box, whether no float32 execution on a float32 input of the box gives an unsafe output.

    A box that one pass of bounds does not settle is halved where its inputs matter most, and its halves
    halved again, to a small depth, so that a proof does not hang on the last digit of its producer's
    bounds.
    """
    result = np.ones(len(boxes.rows), dtype=bool)
    owner = np.arange(len(boxes.rows))
    for depth in range(MAX_HALVINGS + 1):
        settled, effect = _attempt(program, boxes, goals)
        if settled.all():
            break
        open_now = np.flatnonzero(~settled)
        if depth == MAX_HALVINGS or len(open_now) > MAX_OPEN:
            result[owner[open_now]] = False
            break
        split = Boxes(boxes.lower[open_now], boxes.upper[open_now], boxes.rows[open_now])
        stuck = (split.lower == split.upper).all(axis=1)
        result[owner[open_now[stuck]]] = False
        keep = result[owner[open_now]]
        if not keep.any():
            break
        owner = np.repeat(owner[open_now[keep]], 2)
        boxes = _halves(Boxes(split.lower[keep], split.upper[keep], split.rows[keep]), effect[open_now[keep]])
    return result


def _attempt(program: Program, boxes: Boxes, goals: Goals) -> tuple[Array, Float]:
    """One pass over all boxes, in blocks of a size that depends on the network alone."""
    size = max(1, min(BLOCK, MAX_NUMBERS // sum(program.sizes)))
    parts: list[tuple[Array, Float]] = []
    with np.errstate(all="ignore"):
        for first in range(0, len(boxes.rows), size):
            block = slice(first, first + size)
            parts.append(
                _pass(program, Boxes(boxes.lower[block], boxes.upper[block], boxes.rows[block]), goals)
            )
    return np.concatenate([settled for settled, _ in parts]), np.concatenate([effect for _, effect in parts])


def _pass(program: Program, boxes: Boxes, goals: Goals) -> tuple[Array, Float]:
    state = sweep(program, boxes)
    positive = np.zeros((len(boxes.rows), len(goals.bounds)), dtype=bool)
    effect = np.zeros(boxes.lower.shape)
    m = magnitude(state, program.output)
    box = np.arange(len(boxes.rows))
    for at, c in enumerate(goals.coefficients):
        # The coefficients and the bound were rounded to float64; so was their product with the output.
        own = state.noise64 * SLACK * (m @ np.abs(c) + abs(goals.bounds[at]))
        A = np.repeat(c[None, :], len(box), axis=0)
        low, matters = lowest(state, {program.output: A}, -goals.bounds[at] - own, box)
        positive[:, at] = np.isfinite(low) & (low > 0) & ~state.failed
        effect += np.where(positive[:, at : at + 1], 0.0, matters)
    for at in np.flatnonzero(~state.failed & ~_settled(positive, goals)):
        for number in np.flatnonzero(~positive[at]):
            positive[at, number] = _always_violated(goals.inequalities[number], state, int(at))
    return _settled(positive, goals), np.nan_to_num(effect)


def _settled(positive: Array, goals: Goals) -> Array:
    found = np.ones(len(positive), dtype=bool)
    for members in goals.members:
        found &= positive[:, list(members)].any(axis=1)
    return found


def _always_violated(inequality: Inequality, state: Sweep, box: int) -> bool:
    """Decides exactly, from the intervals of the outputs alone; it settles ties that noise would spoil."""
    lower, upper = state.lower[state.program.output][box], state.upper[state.program.output][box]
    least = sum(
        (c * Fraction(float(lower[i] if c > 0 else upper[i])) for i, c in inequality.terms), Fraction(0)
    )
    return least >= inequality.bound if inequality.strict else least > inequality.bound


def _halves(boxes: Boxes, effect: Float) -> Boxes:
    """Each box as two float32 boxes, left half before right half, cut along the input that matters most."""
    width = boxes.upper - boxes.lower
    dim = np.argmax(np.where(width > 0, effect + width * 2.0**-1000, -1.0), axis=1)
    at = np.arange(len(dim))
    low, high = boxes.lower[at, dim], boxes.upper[at, dim]
    middle = ((low + high) * 0.5).astype(np.float32)
    middle = np.where(middle >= high, low.astype(np.float32), middle)
    lower, upper = np.repeat(boxes.lower, 2, axis=0), np.repeat(boxes.upper, 2, axis=0)
    upper[2 * at, dim] = middle
    lower[2 * at + 1, dim] = np.nextafter(middle, np.float32(np.inf))
    return Boxes(lower, upper, np.repeat(boxes.rows, 2))


def boxes_of(
    lower: Sequence[Sequence[float]], upper: Sequence[Sequence[float]], rows: Sequence[int]
) -> Boxes:
    """Boxes from float32 values held as Python floats."""
    kind: Any = np.float64
    return Boxes(np.array(lower, dtype=kind), np.array(upper, dtype=kind), np.array(rows, dtype=np.int64))


MAX_HALVINGS = 6
MAX_OPEN = 4096
BLOCK = 256
MAX_NUMBERS = 1 << 20
MAX_ENTRIES = 1 << 22
