"""What must hold: boxes of inputs, and for each the unsafe outputs, an OR of ANDs of linear inequalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float32

from sutura.errors import PropertyError
from sutura.property.float32 import nearest, round_down, round_up


@dataclass(frozen=True, slots=True)
class Inequality:
    """sum of coefficient * Y_index <= bound (or < where `strict`); indices ascend, no coefficient is zero."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool = False

    def holds(self, outputs: Float32[np.ndarray, " n"]) -> bool:
        """Decide it for one output vector, exactly (rational arithmetic).

        Infinities count as in the extended reals; not-a-number, and a sum of opposite infinities, satisfy
        nothing.
        """
        values = [(c, float(outputs[i])) for i, c in self.terms]
        if not all(np.isfinite(v) for _, v in values):
            limits = {np.sign(v) if c > 0 else -np.sign(v) for c, v in values if not np.isfinite(v)}
            return limits == {-1.0}
        total = sum((c * Fraction(v) for c, v in values), Fraction(0))
        return total < self.bound if self.strict else total <= self.bound


Conjunction = tuple[Inequality, ...]
Ends = tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]


@dataclass(frozen=True, slots=True)
class Box:
    """Closed box of inputs, lower[i] <= X_i <= upper[i], in exact rational numbers."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    _hull: list[Ends] = field(default_factory=list["Ends"], init=False, repr=False, compare=False)
    """The float32 hull once it was asked for: exact rounding of many numbers takes long."""

    def float32_hull(self) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """The box rounded outward to float32: holds every number of the box however it is cast to float32.

        Raises PropertyError where a bound lies beyond the float32 range.
        """
        if not self._hull:
            low = _float32_array([round_down(v) for v in self.lower], self.lower)
            high = _float32_array([round_up(v) for v in self.upper], self.upper)
            self._hull.append((low, high))
        low, high = self._hull[0]
        return low.copy(), high.copy()

    def float32_inside(self) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """The largest float32 box inside the box, for searches whose points must truly lie in it.

        A dimension that holds no float32 number gets the one nearest to its middle as both ends: that point
        is not in the box, so check `contains`. Raises PropertyError where a bound is beyond float32.
        """
        low, high = self.float32_hull()  # refuses what is out of range
        for i, (lo, hi) in enumerate(zip(self.lower, self.upper, strict=True)):
            low[i], high[i] = round_up(lo), round_down(hi)
            if low[i] > high[i]:
                low[i] = high[i] = nearest((lo + hi) / 2)
        return low, high

    def contains(self, point: Float32[np.ndarray, " n"]) -> bool:
        """Whether a float32 point lies in the box, exactly. Infinities and not-a-number lie in no box."""
        return bool(np.isfinite(point).all()) and all(
            lo <= Fraction(float(v)) <= hi for v, lo, hi in zip(point, self.lower, self.upper, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Case:
    """Inside `box`, an output that satisfies every inequality of any one conjunction is unsafe."""

    box: Box
    unsafe: tuple[Conjunction, ...]


@dataclass(frozen=True, slots=True)
class Property:
    """A network has the property if no input of any case's box maps to an output unsafe in that case.

    `text` is the VNN-LIB 1.0 text that says the same (the file's own text where it came from a 1.0 file,
    inflated where that was gzip).
    """

    name: str
    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    text: bytes


def violates(
    property: Property, x: Float32[np.ndarray, " inputs"], y: Float32[np.ndarray, " outputs"]
) -> bool:
    """Whether `x` with output `y` breaks the property: x in a case's box, y unsafe in that case; exactly."""
    return any(
        case.box.contains(x) and any(all(i.holds(y) for i in conjunction) for conjunction in case.unsafe)
        for case in property.cases
    )


def unsafe_mask(case: Case, outputs: Float32[np.ndarray, "batch n"]) -> Bool[np.ndarray, " batch"]:
    """For each row whether it is unsafe in `case`. Exact: it agrees with `Inequality.holds` on every row."""
    unsafe = np.zeros(len(outputs), dtype=np.bool_)
    for conjunction in case.unsafe:
        unsafe |= conjunction_mask(conjunction, outputs)
    return unsafe


def conjunction_mask(
    conjunction: Conjunction, outputs: Float32[np.ndarray, "batch n"]
) -> Bool[np.ndarray, " batch"]:
    """For each row whether it satisfies every inequality of `conjunction`; exact."""
    mask = np.ones(len(outputs), dtype=np.bool_)
    for inequality in conjunction:
        mask &= inequality_mask(inequality, outputs)
    return mask


def inequality_mask(
    inequality: Inequality, outputs: Float32[np.ndarray, "batch n"]
) -> Bool[np.ndarray, " batch"]:
    """For each row whether it satisfies `inequality`; exact, and fast for the usual one or two terms."""
    match inequality.terms:
        case ((index, coefficient),):
            return _threshold_mask(outputs[:, index], coefficient, inequality)
        case ((i, a), (j, b)) if a + b == 0 and inequality.bound == 0:
            small, large = (outputs[:, i], outputs[:, j]) if a > 0 else (outputs[:, j], outputs[:, i])
            if inequality.strict:
                return small < large
            return (small <= large) & ((small != large) | np.isfinite(small))
        case _:
            return _sum_mask(inequality, outputs)


def _threshold_mask(
    column: Float32[np.ndarray, " batch"], coefficient: Fraction, inequality: Inequality
) -> Bool[np.ndarray, " batch"]:
    # A float32 number is below an exact threshold just when it is below the threshold rounded the right way.
    threshold = inequality.bound / coefficient
    if coefficient > 0:
        return column < round_up(threshold) if inequality.strict else column <= round_down(threshold)
    return column > round_down(threshold) if inequality.strict else column >= round_up(threshold)


def _sum_mask(inequality: Inequality, outputs: Float32[np.ndarray, "batch n"]) -> Bool[np.ndarray, " batch"]:
    """Float64 sums where their rounding error cannot matter, rational arithmetic for the other rows."""
    indices = [i for i, _ in inequality.terms]
    try:
        coefficients = np.array([float(c) for _, c in inequality.terms], dtype=np.float64)
        bound = float(inequality.bound)
    except OverflowError:
        return np.array([inequality.holds(row) for row in outputs], dtype=np.bool_)
    with np.errstate(all="ignore"):
        products = outputs[:, indices].astype(np.float64) * coefficients
        gap = products.sum(axis=1) - bound
        # Twice the usual (n + 2) u sum|c y|, with room for coefficients that are subnormal as float64.
        size = np.abs(products).sum(axis=1) + abs(bound)
        error = (len(indices) + 4) * (2.0**-52 * size + 2.0**-900)
        mask = gap < -error
        undecided = ~(mask | (gap > error)) | ~np.isfinite(gap)
    for row in np.flatnonzero(undecided):
        mask[row] = inequality.holds(outputs[row])
    return mask


def _float32_array(rounded: Sequence[np.float32], exact: Sequence[Fraction]) -> Float32[np.ndarray, " n"]:
    values = np.array(rounded, dtype=np.float32)
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        side = "below" if exact[index] < 0 else "above"
        raise PropertyError(
            f"a bound of X_{index} lies {side} the float32 range; the largest number is 3.4028235e38"
        )
    return values
