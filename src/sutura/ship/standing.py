"""What is known of the network that ships; what was proved of others on the way does not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sutura.ship.chain import Shipped
from sutura.ship.result import Done
from sutura.ship.store import digest


@dataclass(frozen=True, slots=True)
class Standing:
    """A property of the network that ships: "certified", "proved", "violated", "unknown" or "not asked".

    `level` and `assumptions` are those of the claim. `earlier` names a stage at which another network, now
    changed, was proved: that says nothing of this one, unless `carried` says that the proof carried over.
    """

    property: str
    verdict: str
    level: str
    assumptions: tuple[str, ...]
    earlier: str
    carried: bool = False


def standings(shipped: Shipped) -> tuple[Standing, ...]:
    """One for each property of the recipe, from the stages that read the very bytes that ship."""
    final = digest(shipped.network)
    return tuple(
        _standing(shipped, place.name, at, final) for at, place in enumerate(shipped.recipe.properties)
    )


def _standing(shipped: Shipped, name: str, at: int, final: str) -> Standing:
    earlier = ""
    for done in reversed(shipped.stages):
        if done.stage.run == "repair" and done.after == final and shipped.certificate is not None:
            said = done.result.document
            return Standing(name, "certified", said.get("level", ""), _words(said), earlier)
        said = done.verdict(at) if done.stage.run == "verify" else None
        if said is not None:
            if done.read == final:
                kept = bool(said.get("carried"))
                return Standing(name, said["verdict"], said.get("level", ""), _words(said), earlier, kept)
            if said["verdict"] == "proved" and not earlier:
                earlier = f"before {_next_change(shipped, done)}"
    return Standing(name, "not asked", "", (), earlier)


def _words(said: dict[str, Any]) -> tuple[str, ...]:
    return tuple(said.get("assumptions", ()))


def _next_change(shipped: Shipped, since: Done) -> str:
    later = shipped.stages[shipped.stages.index(since) + 1 :]
    return next((d.stage.run for d in later if d.after != d.read), "the last change")
