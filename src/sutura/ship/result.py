"""A stage that was done: what it was, what it read, and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sutura.ship.recipe import Stage
from sutura.ship.store import Result


@dataclass(frozen=True, slots=True)
class Done:
    """A stage with its result, and digests of the network it read and of the one after it.

    `asked` are the positions of the properties it was given; `carried` holds what was known of others from
    earlier stages, so that they were not asked again.
    """

    stage: Stage
    result: Result
    read: str
    after: str
    asked: tuple[int, ...] = ()
    carried: Mapping[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])

    def verdict(self, at: int) -> dict[str, Any] | None:
        """What a verify stage said of the property at that position of the recipe."""
        if at in self.carried:
            return self.carried[at]
        return self.result.document["properties"][self.asked.index(at)] if at in self.asked else None
