"""Verdicts as SARIF 2.1.0 (OASIS, 2020), which code-review tools show beside the files they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sutura import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

FEW = 16
"""Numbers of a witness in a message; the properties of the result have all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of SARIF: its id and name, what a result of it is, and the level where it is a failure."""

    id: str
    name: str
    kind: str
    level: str
    text: str


def sarif(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The SARIF log of verdicts: each has `network` and `property` (paths), `verdict`, and what the documents
    of verify and campaign say of one.

    A violated property is a failure, a proved one a pass, an unknown one open, in SARIF's own words. A result
    lies at the property's file, with the network beside it. Lines of a list that nobody has decided yet are
    left out.
    """
    told = [_result(result) for result in results if result["verdict"] in RULES]
    driver = {
        "name": "sutura",
        "version": __version__,
        "rules": [_rule(rule) for rule in _DISTINCT],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "results": told,
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def repaired(report: Mapping[str, Any], network: str, properties: Iterable[str]) -> list[dict[str, Any]]:
    """The results to give `sarif` for the report of a repair: what is now known of the repaired network."""
    certified = report["after"] == "certified"
    said: dict[str, Any] = {
        "verdict": "certified" if certified else "unknown",
        "reason": report["note"] or "the method leaves regions unproved",
        **{key: report[key] for key in ("level", "assumptions") if key in report},
    }
    return [{"network": network, "property": name, **said} for name in properties]


def _result(said: Mapping[str, Any]) -> dict[str, Any]:
    rule = RULES[said["verdict"]]
    named = "\0".join((rule.id, str(said["network"]), str(said["property"])))
    names = {name: Path(said[name]).name for name in ("network", "property")}
    return {
        "ruleId": rule.id,
        "ruleIndex": _DISTINCT.index(rule),
        "kind": rule.kind,
        "level": rule.level,
        "message": {"text": f"{rule.text.format(**names)}{_detail(said)}"},
        "locations": [{"physicalLocation": {**_place(said["property"]), "region": {"startLine": 1}}}],
        "relatedLocations": [
            {"id": 1, "message": {"text": "the network"}, "physicalLocation": _place(said["network"])}
        ],
        "partialFingerprints": {"sutura/v1": hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()},
        "properties": {key: said[key] for key in KEPT if said.get(key) is not None},
    }


def _detail(said: Mapping[str, Any]) -> str:
    """A witness, or a reason, as the end of a message."""
    if "witness" in said:
        witness = said["witness"]
        return f": input {_numbers(witness['input'])} gives {_numbers(witness['output'])} in ONNX Runtime."
    if said["verdict"] in ("unknown", "error"):
        return f": {said['reason']}."
    return f" ({said['level']})." if "level" in said else "."


def _numbers(values: list[float]) -> str:
    more = ", ..." if len(values) > FEW else ""
    return f"[{', '.join(f'{v:.9g}' for v in values[:FEW])}{more}]"


def _place(name: str) -> dict[str, Any]:
    """A file, relative to the root of the sources unless its path is absolute."""
    path = Path(name)
    if path.is_absolute():
        return {"artifactLocation": {"uri": path.as_uri()}}
    return {"artifactLocation": {"uri": quote(path.as_posix()), "uriBaseId": "SRCROOT"}}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": f"{rule.text.format(network='A network', property='its property')}."},
        "defaultConfiguration": {"level": rule.level},
    }


VIOLATED = Rule("SUT001", "PropertyViolated", "fail", "error", "{network} violates {property}")
UNDECIDED = Rule("SUT002", "PropertyUndecided", "open", "none", "{network}: {property} is not decided")
UNUSABLE = Rule("SUT003", "FileUnusable", "fail", "error", "{network} and {property} cannot be used")
HOLDS = Rule("SUT004", "PropertyProved", "pass", "none", "{network}: {property} is proved")
REAL = Rule(
    "SUT005", "PropertyHoldsInRealArithmetic", "pass", "none", "{network}: {property} holds over the reals"
)
_DISTINCT = (VIOLATED, UNDECIDED, UNUSABLE, HOLDS, REAL)

RULES: Mapping[str, Rule] = {
    "violated": VIOLATED,
    "unknown": UNDECIDED,
    "error": UNUSABLE,
    "proved": HOLDS,
    "certified": HOLDS,
    "holds-real": REAL,
}
"""Verdict -> rule."""

KEPT = ("verdict", "level", "assumptions", "witness", "reason", "kind", "seconds", "boxes", "job")
"""What a result's property bag keeps of a verdict."""
