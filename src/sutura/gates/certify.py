"""The certificate of a repair: the proof tree bound to the bytes of all files, checked before it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sutura import __version__
from sutura.certificate.check import check
from sutura.certificate.claim import claim
from sutura.certificate.errors import CertificateError
from sutura.certificate.schema import Certificate, Counts, PropertyEntry, dumps
from sutura.certificate.tree import LEAF, Split, encode
from sutura.certificate.wire import read_model
from sutura.errors import RepairError
from sutura.gates.cells import Cell, Tree
from sutura.property.spec import Property
from sutura.verdict.workers import cores


def certify(
    repaired: bytes,
    original: bytes,
    properties: Sequence[Property],
    proof: tuple[Tree[Any], Counts],
    workers: int | None,
) -> tuple[bytes, str]:
    """The certificate's bytes, and why the independent checker refuses it (nothing where it accepts).

    Raises RepairError where the certificate cannot be written.
    """
    tree, counts = proof
    nodes = (LEAF if isinstance(node, Cell) else Split(node.dim, node.threshold) for node in tree)
    operators = {node.op for node in read_model(repaired).nodes}
    try:
        certificate = dumps(
            Certificate(
                network=_digest(repaired),
                original=_digest(original),
                properties=tuple(PropertyEntry(p.name, _digest(p.text)) for p in properties),
                tree=encode(nodes),
                counts=counts,
                tool=f"sutura {__version__}",
                assumes=claim(operators=operators).assumes,
            )
        )
    except CertificateError as error:
        raise RepairError(f"no certificate can be written for this repair: {error}") from None
    report = check(repaired, [p.text for p in properties], certificate, workers=workers or cores())
    return certificate, "" if report.accepted else report.reason


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
