"""Repair ACAS Xu networks and say what it cost: output gates, neuron gates, and a clamp on the whole box.

    python benchmarks/repair_acasxu.py [--quick] [--json FILE] [--samples N] [--data FOLDER]

Outputs are compared with the original file. Run-time ratios are those of quiet minima of interleaved runs of
the repaired network and the same network without gates, both written by sutura, on inputs in the property's
box and away from it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

import sutura
from sutura.gates.evaluate import inside, outside
from sutura.gates.mend import RepairConfig
from sutura.network.onnx_write import write_onnx
from sutura.network.run import Session, open_session
from sutura.verdict.replay import runner

CASES = (
    ("2_9", (8,)),
    ("1_9", (7,)),
    ("2_1", (2,)),
    ("3_8", (2,)),
    ("4_6", (2,)),
    ("5_7", (2,)),
    ("2_9", (1, 2, 3, 4, 8)),
)
QUICK = (("2_9", (8,)), ("2_1", (2,)))

METHODS = {
    "output": RepairConfig(gate="output"),
    "neuron": RepairConfig(gate="neuron"),
    "clamp": RepairConfig(gate="output", boxes=0),
}
"""`clamp` gates each property's whole box: no verification, the plain baseline."""

QUICK_METHODS = {
    "output": RepairConfig(gate="output", boxes=3000),
    "neuron": RepairConfig(gate="neuron", boxes=3000, regions=8),
    "clamp": METHODS["clamp"],
}


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one case; changes are mean absolute changes of a score, shares lie in 0..1."""

    case: str
    method: str
    seconds: float
    proved: int
    output_gated: int
    neuron_gated: int
    neurons_held: int
    fallbacks: int
    proved_share: float
    violating_before: float
    violating_after: float
    agreeing_right: float
    identical_right: float
    change_right: float
    change_wrong: float | None
    nearest_wrong: float | None
    identical_outside: float
    onnx_bytes: int
    certificate_bytes: int
    batch_1_ratio: float
    batch_1024_ratio: float
    batch_1_ratio_elsewhere: float
    batch_1024_ratio_elsewhere: float


def measure(data: Path, case: tuple[str, tuple[int, ...]], method: str, how: tuple[RepairConfig, int]) -> Row:
    """Repair one case with one method and compare the two networks."""
    net, numbers = case
    config, samples = how
    original = (data / "acasxu" / "onnx" / f"ACASXU_run2a_{net}_batch_2000.onnx").read_bytes()
    loaded = sutura.load(original)
    properties = [sutura.read_property(data / "acasxu" / "vnnlib" / f"prop_{n}.vnnlib") for n in numbers]
    started = time.perf_counter()
    fixed = sutura.repair(loaded, properties, config)
    seconds = time.perf_counter() - started
    sessions = open_session(write_onnx(loaded.network)), open_session(fixed.onnx, gated=True)
    networks = runner(open_session(unbatched(original))), runner(sessions[1])
    inner = [inside(networks, p, properties, samples=samples, decision="argmin") for p in properties]
    return Row(
        f"N{net.replace('_', ',')} p{'+'.join(map(str, numbers))}",
        method,
        seconds,
        *(
            getattr(fixed.regions, k)
            for k in ("proved", "output_gated", "neuron_gated", "neurons_held", "fallbacks")
        ),
        fixed.regions.proved_share,
        *(mean([getattr(i, k) for i in inner]) for k in INNER),
        outside(networks, properties, samples=samples).identical,
        len(fixed.onnx),
        len(fixed.certificate),
        *(ratio(sessions, x) for x in (*batches(properties, True), *batches(properties, False))),
    )


INNER = (
    "violating_before",
    "violating_after",
    "agreeing",
    "identical",
    "change_right",
    "change_wrong",
    "nearest_wrong",
)


def mean(values: list[float]) -> float | None:
    """Over the properties that have such samples; None where none has."""
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else None


def unbatched(original: bytes) -> bytes:
    """The original file with its batch axis set free, so that both networks run the same batches."""
    import onnx

    model = onnx.load_from_string(original)
    for value in (*model.graph.input, *model.graph.output):
        if not any(value.name == i.name for i in model.graph.initializer):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model.SerializeToString()


def batches(properties: list[Any], inner: bool) -> Iterator[np.ndarray]:
    """Batches of 1 and of 1024: inputs of the first property's box, or of a box well away from it."""
    low, high = properties[0].cases[0].box.float32_hull()
    shift = 0.0 if inner else 2.0 * (high - low).max()
    for size in (1, 1024):
        share = np.random.default_rng(0).random((size, len(low)), dtype=np.float32)
        yield (low + share * (high - low) + shift).astype(np.float32)


def ratio(sessions: tuple[Session, Session], x: np.ndarray) -> float:
    """Time of the repaired network over that of the original, quiet minima of interleaved runs."""
    best = [np.inf, np.inf]
    shaped = x.reshape(len(x), *sessions[0].input_shape)
    for _ in range(60):
        for at, session in enumerate(sessions):
            best[at] = min(best[at], _seconds(session, shaped, max(1, 256 // len(x))))
    return best[1] / best[0]


def _seconds(session: Session, x: np.ndarray, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        session.runtime.run([session.output], {session.input: x})
    return (time.perf_counter() - started) / repeats


def rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """All rows, each shown as it comes."""
    samples = 100_000 if arguments.quick else arguments.samples
    for case in QUICK if arguments.quick else CASES:
        for method, config in (QUICK_METHODS if arguments.quick else METHODS).items():
            yield measure(arguments.data, case, method, (config, samples))


def show(found: list[Row]) -> Table:
    """The figures that people compare."""
    table = Table(title="repaired ACAS Xu networks")
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading in ("case", "method") else "right")
    for row in found:
        table.add_row(*(text(row) for text in COLUMNS.values()))
    return table


def small(value: float | None) -> str:
    """A change, or a dash where no sample was wrong."""
    return "-" if value is None else f"{value:.2e}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "case": lambda r: r.case,
    "method": lambda r: r.method,
    "s": lambda r: f"{r.seconds:.1f}",
    "proved": lambda r: f"{r.proved:,}",
    "output": lambda r: f"{r.output_gated:,}",
    "neuron": lambda r: f"{r.neuron_gated:,}",
    "share proved": lambda r: f"{r.proved_share:.1%}",
    "violating": lambda r: f"{r.violating_before:.4%}",
    "after": lambda r: f"{r.violating_after:.4%}",
    "right agree": lambda r: f"{r.agreeing_right:.3%}",
    "right change": lambda r: f"{r.change_right:.1e}",
    "wrong change": lambda r: small(r.change_wrong),
    "nearest": lambda r: small(r.nearest_wrong),
    "same outside": lambda r: f"{r.identical_outside:.2%}",
    "kB": lambda r: f"{r.onnx_bytes / 1000:.0f}",
    "x1 in": lambda r: f"{r.batch_1_ratio:.2f}",
    "x1024 in": lambda r: f"{r.batch_1024_ratio:.2f}",
    "x1 out": lambda r: f"{r.batch_1_ratio_elsewhere:.2f}",
    "x1024 out": lambda r: f"{r.batch_1024_ratio_elsewhere:.2f}",
}
"""Heading -> text of a row."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two cases, 100,000 samples each")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--samples", type=int, default=1_000_000, help="samples a property")
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    arguments = parser.parse_args()
    found: list[Row] = []
    console = Console(width=220)
    for row in rows(arguments):
        found.append(row)
        console.print(f"{row.case} {row.method}: {row.seconds:.1f} s")
    console.print(show(found))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
