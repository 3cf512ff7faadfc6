"""Chunks of boxes on all cores: threads, since numpy releases the interpreter while it computes."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

from sutura.journal import Track
from sutura.verdict.memory import RememberingPool

KEPT = 31 << 20
"""Once a block of this size was freed, the C library of Linux keeps freed blocks up to it for the next use.

Else every large temporary goes back to the system, and page faults take a third of the time of a search.
"""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(count: int | None, track: Track | None = None) -> Generator[Executor]:
    """A pool of `count` threads (all cores for None), with one BLAS thread each.

    Results are taken in the order of submission, so that they do not depend on the number of workers. With a
    `track` what is mapped is recorded, and what it holds is not computed again.
    """
    np.empty(KEPT, dtype=np.uint8)
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(count or cores()) as pool:
        yield pool if track is None else RememberingPool(pool, track)
