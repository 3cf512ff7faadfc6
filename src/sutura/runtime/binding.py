"""What a guard starts from: network, certificate and properties, bound to each other by their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sutura.certificate.check import check
from sutura.certificate.errors import CertificateError
from sutura.certificate.schema import Certificate, loads
from sutura.errors import GuardError, MismatchError
from sutura.network.budget import shown
from sutura.network.onnx_read import file_bytes
from sutura.property.read import read_property
from sutura.property.spec import Property

Source = Path | str | bytes


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """Bytes of a network, the digest of its certificate, and the properties in the certificate's order."""

    network: bytes
    digest: str
    properties: tuple[Property, ...]


def bind(
    network: Source, certificate: Source, properties: Sequence[Path | str | Property] | None, *, prove: bool
) -> Bound:
    """Read the three and make sure that they belong together.

    `network` and `certificate` are paths or bytes. Where `properties` is None, a property called NAME in the
    certificate is read from NAME.vnnlib, NAME.vnnlib.gz or STEM.NAME.vnnlib beside the certificate (or the
    network), STEM being the network's name without suffix. With `prove` the independent checker proves the
    certificate again; without, the digests alone are compared, so the file must have been checked before.
    Raises GuardError where a digest differs or the checker refuses, SuturaError where a file is unreadable.
    """
    data, claim_bytes = _bytes(network), _bytes(certificate)
    try:
        claim = loads(claim_bytes)
    except CertificateError as error:
        raise GuardError(f"{_name(certificate, 'the certificate')}: {error}") from None
    if hashlib.sha256(data).hexdigest() != claim.network:
        raise GuardError(
            f"{_name(network, 'the network')} is not the one of {_name(certificate, 'the certificate')} "
            "(SHA-256 differs); give the file that was certified"
        )
    given = _beside(claim, network, certificate) if properties is None else [_read(p) for p in properties]
    ordered = _ordered(claim, given)
    if prove:
        report = check(data, [p.text for p in ordered], claim_bytes)
        if not report.accepted:
            name = _name(certificate, "the certificate")
            raise GuardError(f"the checker refuses {name}: {report.reason}")
    return Bound(data, claim.digest, ordered)


def _ordered(claim: Certificate, given: Sequence[Property]) -> tuple[Property, ...]:
    """The properties as the certificate lists them, told by their text; each must be given."""
    by_digest = {hashlib.sha256(p.text).hexdigest(): p for p in given}
    missing = [entry.name for entry in claim.properties if entry.sha256 not in by_digest]
    if missing:
        raise GuardError(
            f"property {shown(missing[0])} of the certificate is not among those given (by SHA-256 of its "
            "text); name its .vnnlib file"
        )
    found = tuple(by_digest[entry.sha256] for entry in claim.properties)
    if len({(p.inputs, p.outputs) for p in found}) != 1:
        raise MismatchError("the properties speak of networks of different sizes; guard them apart")
    return found


def _beside(claim: Certificate, network: Source, certificate: Source) -> list[Property]:
    """Properties in files that lie beside the certificate or the network, found by name and digest."""
    places = [Path(p) for p in (certificate, network) if not isinstance(p, bytes)]
    stem = "" if isinstance(network, bytes) else Path(network).stem
    found: list[Property] = []
    for entry in claim.properties:
        for place in _candidates(entry.name, stem, places):
            if not place.is_file():
                continue
            prop = read_property(place)
            if hashlib.sha256(prop.text).hexdigest() == entry.sha256:
                found.append(prop)
                break
    return found


def _candidates(name: str, stem: str, places: Sequence[Path]) -> Iterator[Path]:
    """Where a property may lie; names with a path in them are not followed."""
    if Path(name).name != name:
        return
    for folder in dict.fromkeys(place.parent for place in places):
        for file in (f"{name}.vnnlib", f"{name}.vnnlib.gz", f"{stem}.{name}.vnnlib"):
            yield folder / file


def _read(source: Path | str | Property) -> Property:
    return source if isinstance(source, Property) else read_property(source)


def _bytes(source: Source) -> bytes:
    return source if isinstance(source, bytes) else file_bytes(Path(source))


def _name(source: Source, role: str) -> str:
    return role if isinstance(source, bytes) else shown(Path(source).name)
