"""Progress of long work as plain events; whoever wants to see them passes a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a search: what is done, boxes looked at, boxes waiting, share (0 to 1) of it settled.

    `bound` is a certified lower bound of the distance from unsafe over all that waits (None: not known), and
    `note` says what else happened.
    """

    stage: str
    boxes: int
    waiting: int
    settled: float
    bound: float | None = None
    note: str = ""


Listener = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Listens to nothing."""
