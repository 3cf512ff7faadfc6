"""How much a network may ask for, and how its names appear in messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sutura.errors import NetworkError

MEBI = 2**20

MAX_FILE_BYTES = 2**31 - 1
"""Largest network file; protobuf itself ends there."""

MAX_FIELDS = 400_000
"""Most protobuf fields in a file (a node has about ten)."""

MAX_GATED_FIELDS = 4_800_000
"""The same of a repaired file, whose trees take some eight fields a node."""

MAX_NESTING = 64
"""Deepest protobuf message."""

MAX_PACKED_BYTES = 16 * MEBI
"""Most bytes of packed variable-length integers, which grow eightfold in memory."""

MAX_NODES = 20_000
"""Most nodes in a graph."""

MAX_RANK = 8
"""Most axes of a value, the batch axis counted."""

MAX_ELEMENTS = 64 * MEBI
"""Most numbers in all values of one sample together."""

MAX_FOLDED = 16 * MEBI
"""Most numbers computed at reading, in all constants together."""

MAX_MACS = 2**36
"""Most multiply-accumulate steps of one sample."""

SHOWN_NAME, SHOWN_START = 60, 17
SHOWN_REASONS = 10


def shown(name: str) -> str:
    """A name or path as it stands in a message: quoted, escaped, on one line; its middle left out if long."""
    text = (
        name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_START]}...{name[3 + SHOWN_START - SHOWN_NAME :]}"
    )
    return ascii(text)


def shown_shape(shape: Sequence[int]) -> str:
    """A shape as it stands in a message, such as 3x32x32 (or `scalar`)."""
    return "x".join(str(n) if n < 10**12 else "huge" for n in shape[: MAX_RANK + 1]) or "scalar"


def listed(reasons: Sequence[str]) -> str:
    """Reasons in one line; the first ten, then how many more there are."""
    text = "; ".join(reasons[:SHOWN_REASONS])
    more = len(reasons) - SHOWN_REASONS
    return f"{text}; and {more} more" if more > 0 else text


def affordable(shape: Sequence[int], limit: int = MAX_ELEMENTS) -> int:
    """The number of elements of `shape`; raises NetworkError where it is none or passes the limit."""
    if len(shape) >= MAX_RANK:
        raise NetworkError(f"has {len(shape)} axes; at most {MAX_RANK - 1} and the batch axis are supported")
    if any(n <= 0 for n in shape):
        raise NetworkError(f"has shape {shown_shape(shape)}; every axis must have at least one entry")
    size = math.prod(shape)
    if size > limit:
        raise NetworkError(f"would hold {size:.3g} numbers a sample; at most {limit} are supported")
    return size
