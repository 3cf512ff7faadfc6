"""Results as short, self-contained pieces of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sutura.outward import at_least, at_most, share_at_least
from sutura.verdict.outcome import Outcome, Proved, Violated

if TYPE_CHECKING:  # whoever has such a result has loaded its room
    from sutura.gates.deliver import Repair
    from sutura.risk.quantify import RiskResult
    from sutura.verdict.difference import Difference

FEW = 8
"""Numbers shown of a vector."""

GOOD, BAD, OPEN = "#1a7f37", "#c1121f", "#9a6700"
"""Colours with enough contrast on white; on dark pages notebooks lay tables on their own background."""

Rows = list[tuple[str, str]]
Told = tuple[str, str, Rows]
"""A headline, its colour, and rows of what and figure."""


def html(result: Any) -> str:
    """A table of what a result of verify, repair, diff or quantify_risk says. All text is escaped.

    Raises TypeError for anything else.
    """
    kind = type(result).__name__
    if kind not in FORMS:
        raise TypeError(f"html() shows {', '.join(FORMS)}, not {kind}")
    headline, colour, rows = FORMS[kind](result)
    lines = "".join(
        f'<tr><th style="text-align:left">{escape(what)}</th>'
        f'<td style="text-align:left">{escape(said)}</td></tr>'
        for what, said in rows
    )
    return f'<div><strong style="color:{colour}">{escape(headline)}</strong><table>{lines}</table></div>'


def _outcome(found: Outcome) -> Told:
    account = found.account
    spent = [
        ("share proved", share_at_least(account.proved_share)),
        ("boxes", f"{account.boxes:,}"),
        ("seconds", f"{account.seconds:.2f}"),
    ]
    verdict = found.verdict
    if isinstance(verdict, Violated):
        witness = verdict.witness
        seen = [("input", _vector(witness.input)), ("output, in ONNX Runtime", _vector(witness.output))]
        return "violated", BAD, [*seen, *spent]
    if isinstance(verdict, Proved):
        claim = verdict.claim
        word = "holds in real arithmetic" if claim.level == "HOLDS-REAL" else "proved"
        return word, GOOD, [(claim.level, claim.meaning), *spent]
    return "unknown", OPEN, [("reason", verdict.reason), *spent]


def _repair(found: Repair) -> Told:
    regions = found.regions
    rows = [
        (
            "proved without a gate",
            f"{regions.proved:,} regions, {share_at_least(regions.proved_share)} of the boxes",
        ),
        ("behind output gates", f"{regions.output_gated:,} regions"),
        ("behind neuron gates", f"{regions.neuron_gated:,} regions"),
        ("size", f"{len(found.onnx):,} bytes, certificate {len(found.certificate):,} bytes"),
        ("seconds", f"{found.search_seconds:.1f} search, {found.check_seconds:.1f} check"),
    ]
    rows += [("note", found.note)] * bool(found.note)
    if found.certified:
        return "certified: every property is proved, and the checker accepts it", GOOD, rows
    return "not certified: regions are left unproved", OPEN, rows


def _difference(found: Difference) -> Told:
    alike = {True: "proved", False: "no, an input was found", None: "not known"}[found.decides_alike]
    rows = [
        ("largest difference seen", f"{found.largest_seen:.4g}"),
        ("same decisions on the region", alike),
        ("boxes", f"{found.boxes:,}"),
        ("seconds", f"{found.seconds:.2f}"),
    ]
    colour = {True: GOOD, False: BAD, None: OPEN}[found.decides_alike]
    return f"no output differs by more than {at_most(found.largest)} (certified)", colour, rows


def _risk(found: RiskResult) -> Told:
    rows = [
        ("certified radius", f"{at_least(found.lower)} ({found.level})"),
        ("radius of a witness", at_most(found.upper) if found.witness is not None else "none found"),
        ("estimate", "none" if found.estimate is None else f"{found.estimate:.6g}"),
        ("decision at the input", f"{found.label}"),
        ("seconds", f"{found.seconds:.2f}"),
    ]
    rows += [("reason", found.reason)] * bool(found.reason)
    colour = GOOD if found.lower > 0 else OPEN
    return (
        f"no risk within {at_least(found.lower)}" if found.lower > 0 else "no radius is certified",
        colour,
        rows,
    )


def _vector(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.9g}" for v in values[:FEW])
    return shown if len(values) <= FEW else f"{shown}, ... ({len(values)} numbers)"


FORMS: Mapping[str, Callable[[Any], Told]] = {
    "Outcome": _outcome,
    "Repair": _repair,
    "Difference": _difference,
    "RiskResult": _risk,
}
"""Result type -> how it is told. By name, so that showing one loads no other room."""
