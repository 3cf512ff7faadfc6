"""A wall-clock limit that long computations look at."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


class OutOfTimeError(Exception):
    """Raised by a checkpoint after the deadline; always caught by whoever set the deadline."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock; infinite where there is no limit."""

    at: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self.at

    def check(self) -> None:
        """Raise OutOfTimeError once the deadline has passed."""
        if self.passed:
            raise OutOfTimeError


def within(seconds: float | None) -> Deadline:
    """The deadline that many seconds from now; none for None."""
    return Deadline() if seconds is None else Deadline(time.monotonic() + seconds)
