"""The same tests for one sample at a time, on plain Python numbers, where numpy's calls cost more.

A float32 number as a Python float is the same number, so comparisons stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from operator import le

import numpy as np
from jaxtyping import Float32

from sutura.runtime.condition import Boxes, Conditions, Unsafe

MOST_SIDES = 64
"""Box sides of all cases up to which plain numbers are quicker for these too."""

Literal = tuple[int, int, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """Boxes as (lows, highs), a pair a case (none where they have many sides); for each case its
    unsafe set as conjunctions of literals, which compare entries of [outputs, constants]."""

    wide: Boxes
    boxes: tuple[tuple[list[float], list[float]], ...]
    unsafe: tuple[tuple[tuple[Literal, ...], ...], ...]
    constants: tuple[list[float], ...]

    def holding(self, x: Float32[np.ndarray, " n"], point: list[float]) -> list[int] | None:
        """The cases whose box holds the input, `point` in plain numbers; None where it is not finite."""
        if not self.boxes:
            held: list[int] = np.flatnonzero(self.wide.holding(x[None])[0]).tolist()
            return held if held or np.isfinite(x).all() else None
        ends = enumerate(self.boxes)
        found = [case for case, (low, high) in ends if all(map(le, low, point)) and all(map(le, point, high))]
        return found if found or all(map(isfinite, point)) else None

    def passes(self, cases: Sequence[int], output: list[float]) -> bool:
        """Whether an output is finite, and safe in each of the cases."""
        if not all(map(isfinite, output)):
            return False
        for case in cases:
            entries = output + self.constants[case]
            for conjunction in self.unsafe[case]:
                for left, right, weak in conjunction:
                    a, b = entries[left], entries[right]
                    if not (a < b or (weak and a == b)):
                        break
                else:
                    return False
        return True


def single(tested: Conditions) -> Single | None:
    """The tests for one sample; None where sums must be decided."""
    if any(u.sums or u.always for u in tested.unsafe):
        return None
    cases = len(tested.names)
    of_case = {int(case): u for u in tested.unsafe for case in u.cases}
    few = tested.boxes.low.size <= MOST_SIDES
    sides = zip(tested.boxes.low.tolist(), tested.boxes.high.tolist(), strict=True)
    return Single(
        tested.boxes,
        tuple(sides) if few else (),
        tuple(_conjunctions(of_case[case]) for case in range(cases)),
        tuple(of_case[case].constants.tolist() for case in range(cases)),
    )


def _conjunctions(unsafe: Unsafe) -> tuple[tuple[Literal, ...], ...]:
    weak = [False] * len(unsafe.left) if unsafe.weak is None else unsafe.weak.tolist()
    literals = list(zip(unsafe.left.tolist(), unsafe.right.tolist(), weak, strict=True))
    ends = [*unsafe.starts.tolist()[1:], len(literals)]
    return tuple(tuple(literals[a:b]) for a, b in zip(unsafe.starts.tolist(), ends, strict=True))
