"""A pool that remembers: what it computed in an earlier run comes from the journal instead.

Branch and bound is the same every time but for the clock, so a search that is given back its own results
goes through the same states, bit for bit, up to where it was killed. Every record names what it was computed
from by a digest; one that does not fit the question is not used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, TypeVar, cast, final

import numpy as np

from sutura.bounds.crown import Enclosure
from sutura.bounds.region import Ball, Region
from sutura.journal import Track
from sutura.verdict.frontier import Advance, Waiting
from sutura.verdict.step import Step

P = ParamSpec("P")
T = TypeVar("T")

DIGEST = 16


@final
class RememberingPool(Executor):
    """Maps as its pool does, in order, through a track of a journal; all else goes to the pool as it is."""

    def __init__(self, pool: Executor, track: Track) -> None:
        self._pool, self._track = pool, track

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the pool; not remembered."""
        return self._pool.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """As the pool; results are recorded, and those that are recorded are not computed again."""
        asked = list(zip(*iterables, strict=True))
        keys = [_digest(arguments) for arguments in asked]
        done = 0
        while done < len(asked) and (record := self._track.take()) is not None:
            if record[:DIGEST] != keys[done]:
                self._track.reject()
                break
            yield unpacked(record[DIGEST:])
            done += 1
        rest = zip(*asked[done:], strict=True) if asked[done:] else [() for _ in iterables]
        for key, result in zip(keys[done:], self._pool.map(fn, *rest), strict=True):
            self._track.append(key + packed(result))
            yield result


def packed(value: Any) -> bytes:
    """A value made of RECORDED data, mappings, lists, numbers, text and arrays, as bytes."""
    arrays: list[np.ndarray] = []
    plan = json.dumps(_plan(value, arrays), separators=(",", ":")).encode()
    return b"".join([len(plan).to_bytes(4, "big"), plan, *(array.tobytes() for array in arrays)])


def unpacked(data: bytes) -> Any:
    """The value that `packed` was given, exactly."""
    size = int.from_bytes(data[:4], "big")
    stored = memoryview(data)[4 + size :]
    at = 0

    def built(plan: Any) -> Any:
        nonlocal at
        if isinstance(plan, list):
            return [built(part) for part in cast("list[Any]", plan)]
        if not isinstance(plan, dict):
            return plan
        (mark, body), *_ = cast("dict[str, Any]", plan).items()
        if mark == "array":
            dtype, shape = np.dtype(body[0]), tuple(body[1])
            start, at = at, at + dtype.itemsize * math.prod(shape)
            return np.frombuffer(stored[start:at], dtype).reshape(shape).copy()
        if mark == "mapping":
            return {key: built(part) for key, part in body}
        return RECORDED[mark](*[built(part) for part in body])

    return built(json.loads(data[4 : 4 + size]))


def _digest(arguments: tuple[Any, ...]) -> bytes:
    return hashlib.sha256(packed(list(arguments))).digest()[:DIGEST]


def _plan(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value as JSON, its arrays put aside in the order in which they are met."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": [value.dtype.str, value.shape]}
    if is_dataclass(value):
        kind = type(value).__name__
        assert RECORDED[kind] is type(value), kind
        return {kind: [_plan(getattr(value, field.name), arrays) for field in fields(value)]}
    if isinstance(value, Mapping):
        return {"mapping": [[k, _plan(v, arrays)] for k, v in cast("Mapping[Any, Any]", value).items()]}
    if isinstance(value, list | tuple):
        return [_plan(part, arrays) for part in cast("list[Any]", value)]
    if isinstance(value, np.generic):
        return value.item()
    assert value is None or isinstance(value, bool | int | float | str), type(value)
    return value


RECORDED: dict[str, type] = {
    kind.__name__: kind for kind in (Advance, Ball, Enclosure, Region, Step, Waiting)
}
"""What a record may be made of, beside mappings, lists, numbers, text and arrays."""
