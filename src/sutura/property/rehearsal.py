"""A C++ parser on foreign text, first in a child of bounded memory and time, which dies in place of us.

The text of a VNN-LIB 2.0 file is parsed and walked there once, before the package `vnnlib` sees it in this
process. That costs the start of a bare interpreter (some 30 ms), since the child imports nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sutura.errors import PropertyError

MEMORY = 512 * 2**20
SECONDS, SECONDS_PER_MEBI = 2, 0.25
"""Address space of the child, and its seconds of CPU time: a few, and a share for every MiB of text."""

SLACK = 20.0
"""Wall seconds beyond that, for a machine that is busy."""


def rehearse(text: str, source: str) -> None:
    """Return where the package survives the text, whether it takes it or refuses it.

    Raises PropertyError, in one line that begins with `source`, where the child dies or exceeds its limits.
    """
    spec = find_spec("vnnlib")
    if not sys.executable or spec is None or spec.origin is None:
        raise PropertyError(f"{source}: no Python interpreter to parse VNN-LIB 2.0 apart; convert it to 1.0")
    data = text.encode()
    seconds = SECONDS + int(SECONDS_PER_MEBI * len(data) / 2**20)
    where = str(Path(spec.origin).resolve().parent.parent)
    command = [sys.executable, "-I", "-S", "-c", CHILD, where, str(MEMORY), str(seconds)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=seconds + SLACK)
        code = done.returncode
    except subprocess.TimeoutExpired:
        code = None
    except OSError as error:
        raise PropertyError(f"{source}: cannot start a process to parse it in: {error.strerror}") from None
    if code != 0:
        how = f"takes more than {seconds} s" if code in (None, *OUT_OF_TIME) else f"dies of it (code {code})"
        raise PropertyError(f"{source}: the vnnlib package {how}; simplify the file, or convert it to 1.0")


CHILD = """
import sys
where, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except ImportError:
    pass
text = sys.stdin.buffer.read().decode()
sys.path.insert(0, where)
import vnnlib
try:
    query = vnnlib.parse_query_string(text)
    waiting = [assertion.expr for assertion in query.assertions]
    while waiting:
        node = waiting.pop()
        parts = node.children()
        waiting.extend(parts)
        if not parts:
            str(node), getattr(node, "lexeme", None), getattr(node, "indices", None), node.line
except MemoryError:
    sys.exit(4)
except Exception:
    pass
"""
"""The child's program: an error that the package reports is not its death, and is told by the parent."""

OUT_OF_TIME = (-9, -24)
"""Codes of a process that SIGKILL or SIGXCPU ended, as the limit on CPU time does."""
