"""Budgets: how much a file may cost, asked for before the cost is paid."""

from __future__ import annotations

from typing import final

from sutura.errors import PropertyError


@final
class Budget:
    """So many units of something that a file may use up; `what` says in an error what ran out."""

    __slots__ = ("_left", "_limit", "_what")

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._left = limit
        self._what = what

    def spend(self, units: int) -> None:
        """Take `units`; raises PropertyError where they are not left."""
        if units > self._left:
            raise PropertyError(
                f"{self._what}: more than {self._limit:,}; split the property into several files"
            )
        self._left -= units
