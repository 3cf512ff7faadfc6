"""The test that every delivered candidate passed, read from an exported output gate.

The sealed value is Where(test(z), z, rest) of one candidate after the other, and a constant at the end. A
test is an AND of clauses over comparisons of the very vector z that is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sutura.certificate.clauses import Above, Below, Clause, Linear, Literal, Order
from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.model import Exported, attributes, where
from sutura.certificate.template import (
    constant,
    inputs,
    is_half,
    is_made_by,
    is_zero,
    produced,
    row_of,
    shaped,
)
from sutura.certificate.wire import Array


@dataclass(frozen=True, slots=True)
class Test:
    clauses: tuple[Clause, ...]
    inactive: str | None


def mended_row(exported: Exported, sealed: str, taken: tuple[str, str]) -> str | None:
    """Cast(Gather(Gather(row of every sample, place, axis 0), 0, axis 1)): the rows of the samples mended.

    It is found from what the sealed value ends in: a row of the table of constants, or, where no sample that
    is mended can have another row than 1, the constant of that row itself; then None.
    """
    rest = sealed
    for _ in range(MAX_CANDIDATES + 1):
        if rest in exported.constants:
            return None
        if is_made_by(exported, rest, "Gather"):
            break
        rest = inputs(produced(exported, rest, "Where"), 3)[2]
    row = inputs(produced(exported, rest, "Gather"), 2)[1]
    cast = produced(exported, row, "Cast")
    if dict(cast.attributes) != {"to": INT64}:
        raise CertificateError(f"{where(cast)} does not give the row as a whole number")
    gather = produced(exported, inputs(cast, 1)[0], "Gather")
    rows, first = inputs(gather, 2)
    outer = produced(exported, rows, "Gather")
    if attributes(gather, axis=0) != (1,) or not is_zero(exported.constants.get(first)):
        raise CertificateError(f"{where(gather)} does not take the row of each sample")
    if attributes(outer, axis=0) != (0,) or inputs(outer, 2) != taken:
        raise CertificateError(f"{where(outer)} does not take the rows of the samples that are mended")
    return row


def candidates(exported: Exported, final: str, row: str | None) -> tuple[list[Test], Array]:
    """Follows Where(test(z), z, rest) to its end: all tests, and the constants."""
    tests: list[Test] = []
    rest = final
    while not (rest in exported.constants if row is None else is_made_by(exported, rest, "Gather")):
        passed, z, rest = inputs(produced(exported, rest, "Where"), 3)
        tests.append(_test(exported, passed, z, row))
        if len(tests) > MAX_CANDIDATES:
            raise CertificateError(f"the output gate has more than {MAX_CANDIDATES} candidates")
    if not tests:
        raise CertificateError("the output gate delivers nothing but a constant")
    table = exported.constants[rest if row is None else row_of(exported, rest, row)]
    return tests, shaped(table, np.float32, (None, None), "the table of constants")


def _test(exported: Exported, passed: str, z: str, row: str | None) -> Test:
    """Greater(ReduceMin(MatMul(Cast(literals), clauses) + inactive[row]), 0.5): clauses hold or are off; all
    must hold where nothing is added. A single clause needs no ReduceMin.
    """
    low, half = inputs(produced(exported, passed, "Greater"), 2)
    if not is_half(exported.constants.get(half)):
        raise CertificateError(f"the test that gives {brief(passed)} does not compare with 0.5")
    count, off, most = low, None, 1
    if is_made_by(exported, low, "ReduceMin"):
        reduce = exported.producer[low]
        if attributes(reduce, axes=(), keepdims=1) != ((1,), 1):
            raise CertificateError(f"{where(reduce)} does not reduce axis 1 and keep it")
        count, most = inputs(reduce, 1)[0], None
    if row is not None:
        count, inactive = inputs(produced(exported, count, "Add"), 2)
        off = row_of(exported, inactive, row)
    literals, table = inputs(produced(exported, count, "MatMul"), 2)
    cast = produced(exported, literals, "Cast")
    if dict(cast.attributes) != {"to": FLOAT}:
        raise CertificateError(f"{where(cast)} does not cast to float32")
    found = _literals(exported, inputs(cast, 1)[0], z)
    clauses = exported.constants.get(table)
    if clauses is None:
        raise CertificateError(f"the clauses {brief(table)} are no constant")
    clauses = shaped(clauses, np.float32, (len(found), most), "the table of clauses")
    if not np.isin(clauses, (0, 1)).all() or clauses.shape[1] == 0 or clauses.size > MAX_ENTRIES:
        raise CertificateError("the table of clauses holds numbers that are not 0 or 1, or none, or too many")
    joined = tuple(tuple(found[i] for i in np.flatnonzero(column)) for column in clauses.T)
    return Test(joined, off)


def _literals(exported: Exported, value: str, z: str) -> list[Literal]:
    blocks = [value]
    if is_made_by(exported, value, "Concat"):
        concat = exported.producer[value]
        if attributes(concat, axis=0) != (1,):
            raise CertificateError(f"{where(concat)} does not join along axis 1")
        blocks = list(concat.inputs)
    found: list[Literal] = []
    for block in blocks:
        found += _block(exported, block, z)
    return found


def _block(exported: Exported, value: str, z: str) -> Sequence[Literal]:
    node = exported.producer.get(value)
    if node is None or node.domain or node.op not in {"Greater", "GreaterOrEqual", "Less"}:
        raise CertificateError(f"{brief(value)} is no block of literals")
    left, right = inputs(node, 2)
    if is_made_by(exported, left, "MatMul") and node.op == "Greater":
        return _linear_block(exported, left, right, z)
    at = _gathered(exported, left, z)
    if is_made_by(exported, right, "Gather") and node.op != "Less":
        other = _gathered(exported, right, z)
        if len(other) != len(at):
            raise CertificateError(f"{where(node)} compares {len(at)} numbers with {len(other)}")
        return [Order(i, j, node.op == "Greater") for i, j in zip(at, other, strict=True)]
    than = constant(exported, right, (len(at),))
    if node.op == "GreaterOrEqual":
        raise CertificateError(f"{where(node)} compares with constants; only Greater and Less may")
    kind = Above if node.op == "Greater" else Below
    return [kind(i, float(t)) for i, t in zip(at, than, strict=True)]


def _linear_block(exported: Exported, left: str, right: str, z: str) -> list[Literal]:
    read, weights = inputs(produced(exported, left, "MatMul"), 2)
    slack, threshold = inputs(produced(exported, right, "Add"), 2)
    absolute, slacks = inputs(produced(exported, slack, "MatMul"), 2)
    if read != z or inputs(produced(exported, absolute, "Abs"), 1) != (z,):
        raise CertificateError("a linear literal reads another value than the one it lets through")
    P = constant(exported, weights, (None, None))
    Q = constant(exported, slacks, P.shape)
    r = constant(exported, threshold, (P.shape[1],))
    if P.size > MAX_ENTRIES or not len(P):
        raise CertificateError(f"the linear literals hold {P.size} numbers; 1 to {MAX_ENTRIES} are read")
    columns = zip(P.T.tolist(), Q.T.tolist(), r.tolist(), strict=True)
    return [Linear(tuple(p), tuple(q), t) for p, q, t in columns]


def _gathered(exported: Exported, value: str, z: str) -> list[int]:
    node = produced(exported, value, "Gather")
    read, index = inputs(node, 2)
    if read != z or attributes(node, axis=0) != (1,):
        raise CertificateError(f"{where(node)} reads another value than the one that the test lets through")
    found = exported.constants.get(index)
    if found is None or found.dtype.kind != "i" or found.ndim != 1 or (found < 0).any():
        raise CertificateError(f"{where(node)}: its indices are no constant list of whole numbers, 0 or more")
    return [int(i) for i in found]


def reads_below(literal: Literal, width: int) -> bool:
    match literal:
        case Order(high, low):
            return max(high, low) < width
        case Above(index) | Below(index):
            return index < width
        case Linear(weight):
            return len(weight) == width


FLOAT, INT64 = 1, 7
MAX_CANDIDATES = 8
MAX_ENTRIES = 1 << 22
