"""What soundness for every float32 execution costs a search, on ACAS Xu.

    python benchmarks/trust_overhead.py [--quick] [--repeats N] [--timeout S] [--json FILE] [--data FOLDER]

The same search decides each instance twice, side by side: `sound` as it is, and `plain` without any
noise term (no rounding of the network's execution, none of its own: what most verifiers do; its proofs
prove nothing of the network that runs). For `plain`, the lines of sutura.bounds that compute noise are
taken out. CPU seconds are the least of the repeats, interleaved; boxes are those that the search bounds.
Both ratios are sound / plain over all instances that both decide as holding; violated ones end by luck.
Wanted: time at most 1.5, boxes at most 1.05.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from sutura.bounds import crown, interval
from sutura.bounds.program import Affine
from sutura.network.read import Loaded, load
from sutura.property.read import read_property
from sutura.property.spec import Property
from sutura.verdict.outcome import Outcome, Proved
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

INSTANCES = (
    ("1_1", 1), ("1_1", 3), ("1_1", 4), ("1_3", 3), ("2_4", 4), ("2_7", 3), ("3_3", 1), ("3_5", 4),
    ("4_2", 1), ("4_8", 3), ("5_5", 4), ("5_9", 1), ("1_1", 5), ("3_3", 9), ("4_5", 10),
)  # fmt: skip
QUICK = (("1_1", 1), ("3_3", 1), ("3_5", 4))
REPEATS, TIMEOUT = 3, 60.0
NOISE_LINES = (
    "loss = loss + interval.dot(abs(a), error)",
    "loss = loss + interval.charged(program, passed, size) + abs(offset) * 1e-15",
    "loss = loss + interval.charged(program, slopes, region.magnitude)",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One instance, decided both ways."""

    instance: str
    verdict: str
    plain_seconds: float
    sound_seconds: float
    plain_boxes: int
    sound_boxes: int


def bare_backward() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """crown.backward with the lines taken out that compute noise and the loss of float64."""
    source = inspect.getsource(crown.backward)
    for line in NOISE_LINES:
        assert source.count(line) == 1, f"crown.backward has changed: {line}"
        source = source.replace(line, "pass")
    names: dict[str, Any] = dict(vars(crown))
    exec(source, names)
    return names["backward"]


def no_error(layer: Affine, magnitudes: list[np.ndarray], *_: object) -> np.ndarray:
    """The execution error of nothing."""
    return np.zeros((len(magnitudes[0]), layer.size))


@contextmanager
def plain() -> Iterator[None]:
    """The bounds without noise, while the block runs."""
    kept = crown.backward, interval.execution_error, interval.charged
    crown.backward, interval.execution_error = bare_backward(), no_error  # type: ignore[assignment]
    interval.charged = lambda *_: np.zeros((1, 1))  # type: ignore[assignment]
    try:
        yield
    finally:
        crown.backward, interval.execution_error, interval.charged = kept


def decided(loaded: Loaded, prop: Property, timeout: float) -> tuple[float, Outcome]:
    """CPU seconds and the outcome."""
    began = time.process_time()
    outcome = verify(loaded, prop, VerifyConfig(timeout=timeout, workers=1))
    return time.process_time() - began, outcome


def compare(name: str, loaded: Loaded, prop: Property, how: tuple[int, float]) -> Row:
    """Both ways, interleaved; the least of the repeats."""
    repeats, timeout = how
    seconds: dict[bool, list[float]] = {True: [], False: []}
    outcomes: dict[bool, Outcome] = {}
    for _ in range(repeats):
        for sound in (False, True):
            if sound:
                spent, outcomes[sound] = decided(loaded, prop, timeout)
            else:
                with plain():
                    spent, outcomes[sound] = decided(loaded, prop, timeout)
            seconds[sound].append(spent)
    both = all(isinstance(outcome.verdict, Proved) for outcome in outcomes.values())
    words = "holds" if both else "/".join(type(o.verdict).__name__.lower() for o in outcomes.values())
    boxes = [outcomes[sound].account.boxes for sound in (False, True)]
    return Row(name, words, min(seconds[False]), min(seconds[True]), *boxes)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--timeout", type=float, default=TIMEOUT)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", "../shared/data")))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.data / "acasxu"
    rows: list[Row] = []
    for net, number in QUICK if given.quick else INSTANCES:
        loaded = load(folder / "onnx" / f"ACASXU_run2a_{net}_batch_2000.onnx")
        prop = read_property(folder / "vnnlib" / f"prop_{number}.vnnlib")
        if not rows:
            compare("warm-up", loaded, prop, (1, 2.0))
        rows.append(compare(f"N{net} p{number}", loaded, prop, (given.repeats, given.timeout)))
    table = Table(
        "instance", "verdict", "plain s", "sound s", "time ratio", "plain boxes", "sound boxes", "box ratio"
    )
    held = [row for row in rows if row.verdict == "holds"]
    for row in [*rows, total(held)]:
        figures = (
            f"{row.plain_seconds:.3f}",
            f"{row.sound_seconds:.3f}",
            f"{row.sound_seconds / row.plain_seconds:.2f}",
        )
        boxes = (
            f"{row.plain_boxes:,}",
            f"{row.sound_boxes:,}",
            f"{row.sound_boxes / max(1, row.plain_boxes):.3f}",
        )
        table.add_row(row.instance, row.verdict, *figures, *boxes)
    Console(soft_wrap=True).print(table)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in [*rows, total(held)]], indent=2))
    return 0


def total(rows: list[Row]) -> Row:
    """The sums over instances."""
    return Row(
        f"all {len(rows)}", "holds", sum(r.plain_seconds for r in rows), sum(r.sound_seconds for r in rows),
        sum(r.plain_boxes for r in rows), sum(r.sound_boxes for r in rows),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
