"""Properties built in Python. Floats stand for their exact value, strings and Decimals for theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import SupportsFloat

import numpy as np

from sutura.errors import PropertyError
from sutura.property.decimals import checked, parse_decimal
from sutura.property.quote import quote
from sutura.property.spec import Box, Case, Conjunction, Inequality, Property
from sutura.property.write import write

Number = float | str | Decimal | Fraction | SupportsFloat


def box(lower: Iterable[Number], upper: Iterable[Number]) -> Box:
    """The box lower[i] <= X_i <= upper[i]; arrays of any shape are taken row-major.

    Numbers are exact: a float stands for the float itself, so 0.1 is not one tenth, and "0.1" is. Raises
    PropertyError where a bound is not finite, lower > upper, or the lengths differ.
    """
    low, high = _exact_all(lower, "lower"), _exact_all(upper, "upper")
    if len(low) != len(high) or not low:
        raise PropertyError(
            f"{len(low)} lower and {len(high)} upper bounds; give one of each for every input"
        )
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if a > b:
            raise PropertyError(
                f"the interval of X_{i} is empty: lower {float(a):.9g} > upper {float(b):.9g}"
            )
    return Box(low, high)


def robustness(  # noqa: PLR0913 -- the ball, the label and the domain are one idea
    x: Iterable[Number],
    eps: Number,
    label: int,
    *,
    classes: int,
    low: Number | None = 0.0,
    high: Number | None = 1.0,
    name: str = "robustness",
) -> Property:
    """The largest output stays `label` for every input within `eps` of `x` in each coordinate.

    The ball is cut to [low, high] where these are given. A tie with another class is unsafe. Raises
    PropertyError where `eps` is negative, or `x` so far outside of [low, high] that the cut ball is empty.
    """
    centre = _exact_all(x, "x")
    radius = _exact(eps, "eps")
    if radius < 0:
        raise PropertyError(f"eps is {float(radius):.9g}; a radius is not negative")
    floor = None if low is None else _exact(low, "low")
    ceiling = None if high is None else _exact(high, "high")
    lower = [v - radius if floor is None else max(v - radius, floor) for v in centre]
    upper = [v + radius if ceiling is None else min(v + radius, ceiling) for v in centre]
    return argmax_in(box(lower, upper), [label], outputs=classes, name=name)


def output_bound(
    box: Box,
    index: int,
    *,
    lower: Number | None = None,
    upper: Number | None = None,
    outputs: int | None = None,
    name: str = "output_bound",
) -> Property:
    """lower <= Y_index <= upper on the whole box; reaching a bound exactly is safe.

    `outputs` is how many outputs the network has, index + 1 where not given. Raises PropertyError where no
    bound is given, lower > upper, or `index` is no output.
    """
    count = index + 1 if outputs is None else outputs
    _check_labels([index], count)
    floor = None if lower is None else _exact(lower, "lower")
    ceiling = None if upper is None else _exact(upper, "upper")
    if floor is None and ceiling is None:
        raise PropertyError(f"no bound for Y_{index} is given; pass lower=, upper= or both")
    if floor is not None and ceiling is not None and floor > ceiling:
        raise PropertyError(
            f"lower {float(floor):.9g} > upper {float(ceiling):.9g}: no output satisfies both"
        )
    unsafe: list[Conjunction] = []
    if floor is not None:
        unsafe.append((Inequality(((index, Fraction(1)),), floor, strict=True),))
    if ceiling is not None:
        unsafe.append((Inequality(((index, Fraction(-1)),), -ceiling, strict=True),))
    return _property(name, box, count, unsafe)


def argmax_in(box: Box, labels: Iterable[int], *, outputs: int, name: str = "argmax_in") -> Property:
    """The largest output is always one of `labels`, however a tie is read.

    Unsafe: some other output is at least as large as each of `labels`. Raises PropertyError where a label is
    no output, and where `labels` is empty or holds every output.
    """
    chosen = _check_labels(labels, outputs)
    others = [j for j in range(outputs) if j not in chosen]
    return _property(name, box, outputs, [tuple(_at_most(i, j) for i in chosen) for j in others])


def argmax_not_in(box: Box, labels: Iterable[int], *, outputs: int, name: str = "argmax_not_in") -> Property:
    """The largest output is never one of `labels`, however a tie is read.

    Unsafe: one of `labels` is at least as large as each output that is not. Raises as `argmax_in` does.
    """
    chosen = _check_labels(labels, outputs)
    others = [j for j in range(outputs) if j not in chosen]
    return _property(name, box, outputs, [tuple(_at_most(j, i) for j in others) for i in chosen])


def argmin_in(box: Box, labels: Iterable[int], *, outputs: int, name: str = "argmin_in") -> Property:
    """The smallest output is always one of `labels`, however a tie is read.

    Unsafe: some other output is at most as large as each of `labels`. Raises as `argmax_in` does.
    """
    chosen = _check_labels(labels, outputs)
    others = [j for j in range(outputs) if j not in chosen]
    return _property(name, box, outputs, [tuple(_at_most(j, i) for i in chosen) for j in others])


def argmin_not_in(box: Box, labels: Iterable[int], *, outputs: int, name: str = "argmin_not_in") -> Property:
    """The smallest output is never one of `labels`, however a tie is read.

    Unsafe: one of `labels` is at most as large as each output that is not. Raises as `argmax_in` does.
    """
    chosen = _check_labels(labels, outputs)
    others = [j for j in range(outputs) if j not in chosen]
    return _property(name, box, outputs, [tuple(_at_most(i, j) for j in others) for i in chosen])


def _property(name: str, box: Box, outputs: int, unsafe: Sequence[Conjunction]) -> Property:
    if not unsafe or not all(unsafe):
        raise PropertyError(f"{name}: the labels are all {outputs} outputs; leave at least one out")
    cases = (Case(box, tuple(unsafe)),)
    return Property(name, len(box.lower), outputs, cases, write(len(box.lower), outputs, cases))


def _at_most(small: int, large: int) -> Inequality:
    """Y_small <= Y_large."""
    terms = sorted([(small, Fraction(1)), (large, Fraction(-1))])
    return Inequality(tuple(terms), Fraction(0))


def _check_labels(labels: Iterable[int], outputs: int) -> list[int]:
    chosen = sorted({int(label) for label in labels})
    if not chosen:
        raise PropertyError("no label is given; name at least one output")
    if chosen[0] < 0 or chosen[-1] >= outputs:
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise PropertyError(f"label {wrong} is no output; the {outputs} outputs are 0 to {outputs - 1}")
    if len(chosen) * (outputs - len(chosen)) > MOST_PAIRS:
        raise PropertyError(
            f"{len(chosen)} labels of {outputs} outputs need more than {MOST_PAIRS:,} inequalities"
        )
    return chosen


def _exact_all(values: Iterable[Number], what: str) -> tuple[Fraction, ...]:
    flat: Iterable[Number] = values.ravel().tolist() if isinstance(values, np.ndarray) else values
    return tuple(_exact(v, f"{what}[{i}]") for i, v in enumerate(flat))


def _exact(value: Number, what: str) -> Fraction:
    if isinstance(value, Fraction | int):
        return checked(Fraction(value))
    try:
        if isinstance(value, str | Decimal):
            return parse_decimal(str(value))
        return Fraction(float(value))
    except PropertyError as error:
        raise PropertyError(f"{what}: {error}") from None
    except (ValueError, OverflowError, TypeError):
        raise PropertyError(f"{what} is {quote(str(value))}; bounds are finite numbers") from None


MOST_PAIRS = 500_000
