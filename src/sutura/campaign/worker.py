"""The other end of a pool: a process of its own that decides one task after the other.

It imports nothing that computes before it has made sure of one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sutura.campaign.task import Task

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def send(pipe: Connection, job: Task) -> None:
    """A task as three messages: a line of JSON, the network, the property."""
    told = {"key": job.key, "names": job.names, "limits": asdict(job.limits), "version": job.version}
    for part in (json.dumps(told).encode(), job.network, job.property):
        pipe.send_bytes(part)


def serve(pipe: Connection) -> None:
    """Decide what comes through the pipe until it closes. Ends with the parent, even amid a job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    os.environ.update(ONE_THREAD)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while (job := _received(pipe)) is not None:
        from sutura.campaign.task import decide

        answer = json.dumps(decide(job)).encode()
        with contextlib.suppress(OSError):  # nobody waits for it any more; the pipe says so next
            pipe.send_bytes(answer)


def _received(pipe: Connection) -> Task | None:
    try:
        told: dict[str, Any] = json.loads(pipe.recv_bytes())
        network, asked = pipe.recv_bytes(), pipe.recv_bytes()
    except (EOFError, OSError):
        return None
    from sutura.campaign.task import Limits, Task

    names: tuple[str, str] = (told["names"][0], told["names"][1])
    return Task(told["key"], network, asked, names, Limits(**told["limits"]), told["version"])


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    sys.stderr.flush()
    os._exit(1)
