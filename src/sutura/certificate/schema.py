"""The certificate file: canonical JSON that names the files it speaks of by digest and holds the proof tree.

Canonical means sorted keys, no spaces, ASCII, no byte after the closing brace; reading writes the
certificate again and compares bytes, so two different files never say the same thing. `digest` is the SHA-256
of the canonical JSON without that key: it guards against accident, not against forgery; what convinces is the
check of the proof.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn, cast

from sutura.certificate.claim import ASSUMPTIONS, claim
from sutura.certificate.errors import CertificateError, brief


@dataclass(frozen=True, slots=True)
class PropertyEntry:
    """A property the certificate speaks of: its name and the SHA-256 (hex) of its VNN-LIB text, inflated."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What the leaves of the proof tree need, and how many rows the gate tables hold (1 without gates).

    leaves = proved + gated + outside. `outside`: the cell meets no property box; `gated`: output gates give
    all that the cell needs; `proved`: some reachable row needs a bound of the network.
    """

    leaves: int
    proved: int
    gated: int
    outside: int
    rows: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """A claim about one exported network and some properties, with the proof tree (encoded, see `tree`).

    `network` and `original` are SHA-256 digests in hex: of the exported ONNX bytes, and of the network before
    its repair. `properties` stand in the order in which the property files are given to the checker.
    `assumes` are words of `claim.ASSUMPTIONS`: all that the claim rests on.
    """

    network: str
    original: str
    properties: tuple[PropertyEntry, ...]
    tree: bytes
    counts: Counts
    tool: str
    profile: str = "float32-any-order"
    assumes: tuple[str, ...] = claim().assumes

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the canonical JSON without its `digest` key."""
        return hashlib.sha256(_canonical(_document(self))).hexdigest()


def dumps(certificate: Certificate) -> bytes:
    """The certificate file; raises CertificateError where a field does not hold what the format asks for."""
    document = _document(certificate)
    digest = hashlib.sha256(_canonical(document)).hexdigest()
    data = _canonical(document | {"digest": digest})
    loads(data)
    return data


def loads(data: bytes) -> Certificate:
    """Reads a certificate file; raises CertificateError unless it is exactly what `dumps` writes."""
    document = _parse(data)
    digest = _take(document, "digest", str, "")
    certificate = _certificate(document)
    rest = _document(certificate)
    if digest != hashlib.sha256(_canonical(rest)).hexdigest():
        raise CertificateError("the certificate was changed after it was written: its digest does not match")
    if _canonical(rest | {"digest": digest}) != data:
        raise CertificateError(
            "the certificate is not in canonical form (sorted keys, no spaces, no extra bytes)"
        )
    return certificate


def _document(c: Certificate) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "network": {"sha256": c.network},
        "original": {"sha256": c.original},
        "properties": [{"name": p.name, "sha256": p.sha256} for p in c.properties],
        "profile": c.profile,
        "assumes": list(c.assumes),
        "tool": c.tool,
        "tree": base64.b64encode(c.tree).decode("ascii"),
        "counts": asdict(c.counts),
    }


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise CertificateError(f"the certificate has {len(data)} bytes; at most {MAX_BYTES} are read")
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_ITEMS:
        raise CertificateError(f"the certificate holds more than {MAX_ITEMS} JSON items")
    try:
        document: object = json.loads(
            data.decode("ascii"), object_pairs_hook=_unique, parse_constant=_no_float, parse_float=_no_float
        )
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate is no JSON text: {brief(str(error))}") from None
    if not isinstance(document, dict):
        raise CertificateError("the certificate is no JSON object")
    return cast("dict[str, Any]", document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CertificateError("the certificate says the same key twice in one object")
    return found


def _no_float(text: str) -> NoReturn:
    raise CertificateError(f"the certificate holds {brief(text)}; its numbers are whole")


def _certificate(document: dict[str, Any]) -> Certificate:
    _keys(document, DOCUMENT, "the certificate")
    if document["format"] != FORMAT or not _same(document["version"], VERSION):
        raise CertificateError(
            f"the certificate has format {brief(document['format'])} version {brief(document['version'])};"
            f" this checker reads {FORMAT} version {VERSION}"
        )
    return Certificate(
        network=_digest_of(document["network"], "network"),
        original=_digest_of(document["original"], "original"),
        properties=_properties(_take(document, "properties", list, "")),
        tree=_unbase64(_take(document, "tree", str, "")),
        counts=_counts(_take(document, "counts", dict, "")),
        tool=_printable(document["tool"], "tool"),
        profile=_profile(document["profile"]),
        assumes=_assumes(_take(document, "assumes", list, "")),
    )


def _properties(entries: list[Any]) -> tuple[PropertyEntry, ...]:
    if not 1 <= len(entries) <= MAX_PROPERTIES:
        raise CertificateError(
            f"the certificate lists {len(entries)} properties; 1 to {MAX_PROPERTIES} are read"
        )
    found: list[PropertyEntry] = []
    for at, entry in enumerate(entries):
        where = f"properties[{at}]"
        _keys(entry, {"name", "sha256"}, where)
        found.append(
            PropertyEntry(_printable(entry["name"], f"{where}.name"), _sha256(entry["sha256"], where))
        )
    return tuple(found)


def _counts(counts: dict[str, Any]) -> Counts:
    names = [field.name for field in fields(Counts)]
    _keys(counts, set(names), "counts")
    for name in names:
        if type(counts[name]) is not int or not 0 <= counts[name] <= MAX_COUNT:
            raise CertificateError(f"counts.{name} is {brief(counts[name])}; it is a whole number, 0 or more")
    return Counts(**counts)


def _keys(thing: object, names: set[str], where: str) -> None:
    if not isinstance(thing, dict) or set(cast("dict[str, Any]", thing)) != names:
        raise CertificateError(f"{where} must be an object with exactly the keys {', '.join(sorted(names))}")


def _take(document: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if type(document.get(key)) is not kind:
        raise CertificateError(f"{where or 'the certificate'} lacks {key!r}, or it is no {kind.__name__}")
    return document[key]


def _same(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _digest_of(thing: object, where: str) -> str:
    _keys(thing, {"sha256"}, where)
    return _sha256(cast("dict[str, Any]", thing)["sha256"], where)


def _sha256(value: object, where: str) -> str:
    if not isinstance(value, str) or not HEX.fullmatch(value):
        raise CertificateError(f"{where}: {brief(value)} is no SHA-256 digest (64 small hex digits)")
    return value


def _printable(value: object, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT or not value.isprintable():
        raise CertificateError(f"{where}: {brief(value)} is no printable text of 1 to {MAX_TEXT} characters")
    return value


def _profile(value: object) -> str:
    if value not in PROFILES:
        raise CertificateError(
            f"the profile {brief(value)} is unknown; this checker knows {', '.join(PROFILES)}"
        )
    return cast(str, value)


def _assumes(words: list[Any]) -> tuple[str, ...]:
    for word in words:
        if not isinstance(word, str) or word not in ASSUMPTIONS:
            raise CertificateError(f"the certificate assumes {brief(word)}; that is not known here")
    return tuple(words)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise CertificateError("the proof tree of the certificate is no base64 text") from None


FORMAT = "sutura-certificate"
VERSION = 2
PROFILES = ("float32-any-order",)
DOCUMENT = {
    "format", "version", "network", "original", "properties", "profile", "assumes", "tool", "tree", "counts",
    "digest",
}  # fmt: skip
HEX = re.compile(r"[0-9a-f]{64}")
MAX_BYTES = 1 << 26
MAX_ITEMS = 100_000
MAX_PROPERTIES = 10_000
MAX_TEXT = 255
MAX_COUNT = 1 << 40
