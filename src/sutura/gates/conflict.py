"""Why no gate can help: which properties no output satisfies together, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from sutura.errors import RepairError
from sutura.gates.cells import Box32
from sutura.gates.safe_set import inner_point, safe_set
from sutura.property.spec import Case, Property

LONGEST_BOX = 400


def conflict(
    cases: Sequence[tuple[Property, Case]], active: Iterable[int], box: Box32, near: Float64[np.ndarray, " m"]
) -> RepairError:
    """The error that names the fewest of the `active` cases that contradict each other, and their common box.

    `near` is an ordinary output there.
    """
    named = _smallest(cases, sorted(active), near)
    names = list(dict.fromkeys(f"'{cases[i][0].name}'" for i in named))
    if len(names) > 1:
        said = f"properties {' and '.join(names)} contradict each other"
    else:
        said = f"property {names[0]} cannot be satisfied by any output"
    return RepairError(
        f"{said} where {_shown(box)}; change {'one of them' if len(names) > 1 else 'it'} or its box"
    )


def _smallest(
    cases: Sequence[tuple[Property, Case]], active: Sequence[int], near: Float64[np.ndarray, " m"]
) -> tuple[int, ...]:
    for size in (1, 2):
        for some in combinations(active, size):
            if inner_point(safe_set(c for i in some for c in cases[i][1].unsafe), near) is None:
                return some
    return tuple(active)


def _shown(box: Box32) -> str:
    ends = zip(box.low, box.high, strict=True)
    sides = ", ".join(f"X_{d} in [{low + 0.0:.9g}, {high + 0.0:.9g}]" for d, (low, high) in enumerate(ends))
    return sides if len(sides) < LONGEST_BOX else f"{sides[:LONGEST_BOX]}..."
