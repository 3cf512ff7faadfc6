"""The box of a row, read from an exported output gate: outside of it samples leave as they are.

ScatterND then puts Where(in box, sealed, Gather(y, place)) in place of the sealed values. A sample is in the
box of its row if Gather(lower, row) <= x <= Gather(upper, row) for all numbers x of its input. These are
comparisons of float32 numbers, which are exact.
"""

from __future__ import annotations

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.model import Exported, attributes, where
from sutura.certificate.template import constant, inputs, is_half, is_made_by, produced, row_of
from sutura.certificate.wire import Array


def sealed(exported: Exported, put: str, untouched: tuple[str, str]) -> str:
    """The sealed value in `put`: itself, or what samples in their box get, where the others get Gather(y,
    place) for the `untouched` (y, place)."""
    if is_made_by(exported, put, "Where"):
        _, inner, rest = inputs(exported.producer[put], 3)
        if is_made_by(exported, rest, "Gather") and exported.producer[rest].inputs == untouched:
            if attributes(exported.producer[rest], axis=0) != (0,):
                raise CertificateError(f"{brief(rest)} does not take what samples had")
            return inner
    return put


def table(
    exported: Exported, put: str, x: tuple[str, str], by: tuple[str | None, tuple[int, int]]
) -> tuple[Array, Array]:
    """The lowest and highest inputs of each row. `x` is the flat input and the place of the samples; `by` the
    row of each of these, and how many rows and inputs there are."""
    row, shape = by
    passed = inputs(produced(exported, put, "Where"), 3)[0]
    least, half = inputs(produced(exported, passed, "Greater"), 2)
    if not is_half(exported.constants.get(half)):
        raise CertificateError(f"the test that gives {brief(passed)} does not compare with 0.5")
    reduce = produced(exported, least, "ReduceMin")
    if attributes(reduce, axes=(), keepdims=1) != ((1,), 1):
        raise CertificateError(f"{where(reduce)} does not reduce axis 1 and keep it")
    cast = produced(exported, inputs(reduce, 1)[0], "Cast")
    if dict(cast.attributes) != {"to": FLOAT}:
        raise CertificateError(f"{where(cast)} does not cast to float32")
    sides = inputs(produced(exported, inputs(cast, 1)[0], "And"), 2)
    low, high = (
        constant(exported, _side(exported, side, op, x, row), shape)
        for side, op in zip(sides, ("GreaterOrEqual", "LessOrEqual"), strict=True)
    )
    return low, high


def _side(exported: Exported, value: str, op: str, x: tuple[str, str], row: str | None) -> str:
    """The table in a comparison of Gather(x, place) with Gather(table, row)."""
    taken, end = inputs(produced(exported, value, op), 2)
    gather = produced(exported, taken, "Gather")
    if attributes(gather, axis=0) != (0,) or inputs(gather, 2) != x:
        raise CertificateError(f"{where(gather)} does not take the inputs of the samples that are mended")
    return row_of(exported, end, row)


FLOAT = 1
