"""The same tests for one sample at a time, on plain Python numbers, where numpy's calls cost more.

A float32 number as a Python float is the same number, so comparisons stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Float32

from sutura.runtime.condition import Boxes, Conditions, Unsafe

MOST_SIDES = 64
"""Box sides of all cases up to which plain numbers are quicker for these too."""

Literal = tuple[int, int, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """Boxes as (low, high) pairs, one tuple a case (none where they have many sides); for each case its
    unsafe set as conjunctions of literals, which compare entries of [outputs, constants]."""

    wide: Boxes
    boxes: tuple[tuple[tuple[float, float], ...], ...]
    unsafe: tuple[tuple[tuple[Literal, ...], ...], ...]
    constants: tuple[list[float], ...]

    def holding(self, x: Float32[np.ndarray, "1 n"]) -> list[int] | None:
        """The cases whose box holds the input; None where it is not finite."""
        if not self.boxes:
            held: list[int] = np.flatnonzero(self.wide.holding(x)[0]).tolist()
            return held if held or np.isfinite(x).all() else None
        point: list[float] = x[0].tolist()
        found: list[int] = []
        for case, box in enumerate(self.boxes):
            for v, (low, high) in zip(point, box, strict=True):
                if not low <= v <= high:
                    break
            else:
                found.append(case)
        return found if found or all(map(isfinite, point)) else None

    def passes(self, cases: Sequence[int], output: list[float]) -> bool:
        """Whether an output is finite, and safe in each of the cases."""
        for v in output:
            if not isfinite(v):
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
    boxes: list[tuple[tuple[float, float], ...]] = []
    if tested.boxes.low.size <= MOST_SIDES:
        sides = zip(tested.boxes.low.tolist(), tested.boxes.high.tolist(), strict=True)
        boxes = [tuple(zip(low, high, strict=True)) for low, high in sides]
    return Single(
        tested.boxes,
        tuple(boxes),
        tuple(_conjunctions(of_case[case]) for case in range(cases)),
        tuple(of_case[case].constants.tolist() for case in range(cases)),
    )


def _conjunctions(unsafe: Unsafe) -> tuple[tuple[Literal, ...], ...]:
    weak = [False] * len(unsafe.left) if unsafe.weak is None else unsafe.weak.tolist()
    literals = list(zip(unsafe.left.tolist(), unsafe.right.tolist(), weak, strict=True))
    ends = [*unsafe.starts.tolist()[1:], len(literals)]
    return tuple(tuple(literals[a:b]) for a, b in zip(unsafe.starts.tolist(), ends, strict=True))
