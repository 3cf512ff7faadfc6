"""Which proofs of the original carry over to a changed network: those that rest on its decision alone.

Where two networks are proved to decide alike all over a property's boxes (`sutura diff`), and the property
asks for nothing but the decision, the one has it if the other has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sutura.property.read import read_property
from sutura.property.spec import Conjunction, Inequality, Property
from sutura.ship.recipe import Recipe
from sutura.ship.result import Done
from sutura.ship.store import digest
from sutura.verdict.agreement import Decision


def carried(recipe: Recipe, stages: Sequence[Done], network: str) -> Mapping[int, dict[str, Any]]:
    """Position of a property -> what is known of it, of the network with that digest, from earlier stages.

    Sound: the original was proved (for every float32 execution), a diff stage over the property's own file
    proved that both have one and the same strict leader at every input, and which output leads settles
    whether an output is unsafe.
    """
    if not stages:
        return {}
    original = stages[0].read
    alike = [
        done for done in stages
        if done.stage.run == "diff" and done.read == network and done.result.document["decides_alike"] is True
    ]  # fmt: skip
    found: dict[int, dict[str, Any]] = {}
    for at, place in enumerate(recipe.properties):
        proof = next((p for s in stages if (p := _proof(s, original, at)) is not None), None)
        for done in alike if proof is not None else ():
            region = recipe.folder / str(done.stage.options["region"])
            decision: Decision = "argmin" if done.stage.options["decision"] == "argmin" else "argmax"
            if digest(region) == digest(place) and rests_on_decision(read_property(place), decision):
                found[at] = _told(place, proof or {}, done)
    return found


def _proof(done: Done, original: str, at: int) -> dict[str, Any] | None:
    """A verdict on the original that a verify stage proved for float32 execution."""
    if done.stage.run != "verify" or done.read != original or "profile" in done.stage.options:
        return None
    said = done.verdict(at)
    return said if said is not None and said["verdict"] == "proved" else None


def _told(place: Path, proof: Mapping[str, Any], alike: Done) -> dict[str, Any]:
    both = [*proof["assumptions"], *alike.result.document["assumptions"]]
    level = {proof["level"], alike.result.document["level"]}
    return {
        "property": place.name,
        "verdict": "proved",
        "carried": True,
        "level": "PROVED" if level == {"PROVED"} else "PROVED@runtime",
        "assumptions": list(dict.fromkeys(both)),
    }


def rests_on_decision(prop: Property, decision: Decision) -> bool:
    """Whether it follows from which output strictly leads, for each, if an output is unsafe."""
    return all(
        _settled(case.unsafe, leader, decision) for case in prop.cases for leader in range(prop.outputs)
    )


def _settled(unsafe: Sequence[Conjunction], leader: int, decision: Decision) -> bool:
    """Unsafe for all outputs with that leader, or for none."""
    truths = [[_truth(inequality, leader, decision) for inequality in all_of] for all_of in unsafe]
    return any(all(row) for row in truths) or all(False in row for row in truths)


def _truth(inequality: Inequality, leader: int, decision: Decision) -> bool | None:
    """Whether it holds for all outputs with that strict leader (True), for none (False), or for some."""
    coefficients = sorted((c, i) for i, c in inequality.terms)
    if inequality.bound != 0 or len(coefficients) != 2 or coefficients[0][0] + coefficients[1][0] != 0:
        return None
    (_, larger), (_, smaller) = coefficients  # c (Y_smaller - Y_larger) <= 0 with c > 0
    first, last = (smaller, larger) if decision == "argmin" else (larger, smaller)
    return {first: True, last: False}.get(leader)
