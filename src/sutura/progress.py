"""Progress of long work as plain events; whoever wants to see them passes a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a search: what is done, boxes looked at, boxes waiting, share (0 to 1) of it settled."""

    stage: str
    boxes: int
    waiting: int
    settled: float


Listener = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Listens to nothing."""
