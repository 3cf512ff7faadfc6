"""Compare verdicts with Marabou on random small networks and properties near the edge of truth.

    python benchmarks/verify_against_marabou.py --python PATH [--cases N] [--seed S] [--timeout T] [--json F]

PATH is an interpreter (Python 3.8 to 3.11) with maraboupy, 'numpy<2', onnx and onnxruntime.
Both read the same ONNX and VNN-LIB files. Exits with 1 where one proves what the other violates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx

import sutura
from sutura.network import ops
from sutura.network.evaluate import evaluate
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import to_model
from sutura.network.shapes import output_shape
from sutura.property.build import box
from sutura.property.spec import Case, Conjunction, Inequality
from sutura.property.write import write
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

MARGINS = (1.5, 0.7, 0.3, 0.1, 0.02, -0.02)
"""How far a bound lies beyond the most unsafe sampled output, as a share of the outputs' spread."""

GRACE = 60.0
"""Seconds that the other interpreter may take beyond the limits of its cases."""

PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from maraboupy import Marabou
folder, count, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = Marabou.createOptions(verbosity=0, timeoutInSeconds=limit)
with open(f"{folder}/peer.jsonl", "w") as file:
    for case in range(count):
        started = time.monotonic()
        try:
            network = Marabou.read_onnx(f"{folder}/{case}.onnx")
            asked = f"{folder}/{case}.vnnlib"
            verdict = network.solve(propertyFilename=asked, options=options, verbose=False)[0]
        except Exception as error:
            verdict = f"error: {error}"
        file.write(json.dumps([verdict, time.monotonic() - started]) + chr(10))
        file.flush()
"""

WORDS = {"Proved": "unsat", "Violated": "sat", "Unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Compared:
    """One case: both verdicts and wall seconds."""

    case: int
    kind: str
    margin: float
    ours: str
    theirs: str
    our_seconds: float
    their_seconds: float

    @property
    def relation(self) -> str:
        """How the two verdicts relate."""
        if self.ours == self.theirs:
            return "agree"
        decided = {self.ours, self.theirs} == {"sat", "unsat"}
        return "contradict" if decided else "one is undecided"


@dataclass(frozen=True, slots=True)
class Stack:
    """A network under construction: nodes, shapes, and the name of the newest value."""

    nodes: tuple[Node, ...]
    shapes: dict[str, tuple[int, ...]]
    top: str = "x"

    def then(self, op: ops.Op, *others: str) -> Stack:
        """One operator more, on the newest value and others."""
        name = f"v{len(self.nodes)}"
        shape = output_shape(op, tuple(self.shapes[v] for v in (self.top, *others)))
        node = Node(f"n{len(self.nodes)}", op, (self.top, *others), name)
        return Stack((*self.nodes, node), {**self.shapes, name: shape}, name)

    def gemm(self, random: np.random.Generator, outputs: int) -> Stack:
        """A fully connected layer."""
        (n,) = self.shapes[self.top]
        weight, bias = random.normal(size=(n, outputs)) / np.sqrt(n), random.normal(size=outputs) / 2
        return self.then(ops.Gemm(weight.astype(np.float32), bias.astype(np.float32)))


def dense(random: np.random.Generator, bend: ops.Op = ops.Relu()) -> Stack:  # noqa: B008 -- frozen
    """Two to five inputs, one to three hidden layers of two to ten neurons."""
    made = Stack((), {"x": (int(random.integers(2, 6)),)})
    for size in random.integers(2, 11, int(random.integers(1, 4))):
        made = made.gemm(random, int(size)).then(bend)
    return made


def leaky(random: np.random.Generator) -> Stack:
    """The same with leaky activations."""
    return dense(random, ops.LeakyRelu(float(np.float32(random.choice([0.01, 0.1, 0.5])))))


def residual(random: np.random.Generator) -> Stack:
    """A hidden layer added to the one two before it."""
    size = int(random.integers(2, 8))
    made = Stack((), {"x": (int(random.integers(2, 5)),)}).gemm(random, size).then(ops.Relu())
    return made.gemm(random, size).then(ops.Relu()).gemm(random, size).then(ops.Add(), made.top)


def convolution(random: np.random.Generator) -> Stack:
    """A small picture, one convolution, then a hidden layer or none."""
    channels, side = int(random.integers(1, 3)), int(random.integers(3, 5))
    weight = random.normal(size=(int(random.integers(1, 4)), channels, 2, 2)) / 2.0
    bias, pad = random.normal(size=len(weight)) / 4.0, int(random.integers(0, 2))
    stride = int(random.integers(1, 3))
    conv = ops.Conv(weight.astype(np.float32), bias.astype(np.float32), (stride,) * 2, (pad,) * 4, (1, 1), 1)
    made = Stack((), {"x": (channels, side, side)}).then(conv).then(ops.Relu())
    flat = made.then(ops.Reshape((int(np.prod(made.shapes[made.top])),)))
    return flat.gemm(random, 5).then(ops.Relu()) if random.random() < 0.5 else flat


KINDS = {"dense": dense, "leaky": leaky, "residual": residual, "convolution": convolution}
"""Kind of network -> how one is drawn; the cases go through them in turn."""


def network_of(random: np.random.Generator, kind: str) -> Network:
    """A random network of one to three outputs."""
    made = KINDS[kind](random).gemm(random, int(random.integers(1, 4)))
    return Network(kind, "x", made.top, made.nodes, made.shapes, "")


def case_of(random: np.random.Generator, network: Network, margin: float) -> Case:
    """A box, and bounds on outputs placed `margin` beyond what samples of the box reach."""
    centre, width = random.normal(size=network.input_size), 0.2 + random.random(network.input_size)
    low, high = np.round(centre - width, 3), np.round(centre + width, 3)
    x = low + random.random((4096, network.input_size)) * (high - low)
    points = np.clip(x, low, high).reshape(-1, *network.input_shape)
    outputs = evaluate(network, points)
    region = box([str(v) for v in low], [str(v) for v in high])
    return Case(region, (_conjunction(random, outputs, margin),))


def _conjunction(random: np.random.Generator, outputs: np.ndarray, margin: float) -> Conjunction:
    """One or two outputs, each below or above a bound (sums of outputs are beyond Marabou's reader)."""
    chosen = random.permutation(outputs.shape[1])[: int(random.integers(1, 3))]
    sign = random.choice([-1.0, 1.0], len(chosen))
    reached = outputs[:, chosen] * sign
    at = reached[(reached - reached.mean(axis=0)).sum(axis=1).argmin()]
    bounds = np.round(at - margin * (reached.std(axis=0) + 1e-3), 4)
    return tuple(
        Inequality(((int(i), Fraction(int(s))),), Fraction(str(bound)))
        for i, s, bound in zip(chosen, sign, bounds, strict=True)
    )


def write_case(folder: Path, case: int, network: Network, wanted: Case) -> None:
    """The files that both read: a batch of one, as Marabou wants it, and the property in VNN-LIB 1.0."""
    model = to_model(network)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(folder / f"{case}.onnx"))
    text = write(network.input_size, network.output_size, (wanted,))
    (folder / f"{case}.vnnlib").write_bytes(text)


def ours(folder: Path, case: int, limit: float) -> tuple[str, float]:
    """Our verdict on the files, in the words of VNN-COMP, and wall seconds."""
    started = time.monotonic()
    loaded = sutura.load(folder / f"{case}.onnx")
    wanted = sutura.read_property(folder / f"{case}.vnnlib")
    outcome = verify(loaded, wanted, VerifyConfig(timeout=limit, workers=1, seed=case))
    return WORDS[type(outcome.verdict).__name__], time.monotonic() - started


def theirs(folder: Path, python: str, count: int, limit: int) -> list[tuple[str, float]]:
    """Marabou's verdicts; what it had not answered when its time was up is unknown."""
    command = [python, "-c", PEER, str(folder), str(count), str(limit)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=count * limit / 4 + GRACE)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"the other interpreter did not finish: {error}", file=sys.stderr)
    answers = folder / "peer.jsonl"
    lines = answers.read_text().splitlines() if answers.exists() else []
    found = [(str(verdict), float(seconds)) for verdict, seconds in map(json.loads, lines)]
    return found + [("unknown", float("nan"))] * (count - len(found))


def kind_of(case: int) -> str:
    """The kinds in turn, each with every margin."""
    return tuple(KINDS)[case // len(MARGINS) % len(KINDS)]


def compare(python: str, count: int, seed: int, limit: int) -> list[Compared]:
    """Both verdicts on `count` random cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in range(count):
            random = np.random.default_rng((seed, case))
            network = network_of(random, kind_of(case))
            write_case(folder, case, network, case_of(random, network, MARGINS[case % len(MARGINS)]))
        mine = [ours(folder, case, limit) for case in range(count)]
        peer = theirs(folder, python, count, limit)
        return [
            Compared(case, kind_of(case), MARGINS[case % len(MARGINS)], a, b, s, t)
            for case, ((a, s), (b, t)) in enumerate(zip(mine, peer, strict=True))
        ]


def main() -> int:
    """Compare, print the counts, write JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter with maraboupy")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=20, help="seconds a case")
    parser.add_argument("--json", type=Path, help="where to write every case")
    chosen = parser.parse_args()
    found = compare(chosen.python, chosen.cases, chosen.seed, chosen.timeout)
    kinds = Counter(one.relation for one in found)
    print(f"{len(found)} cases: " + ", ".join(f"{kinds[k]} {k}" for k in sorted(kinds)))
    for kind in KINDS:
        part = Counter(one.relation for one in found if one.kind == kind)
        print(f"  {kind}: " + ", ".join(f"{part[k]} {k}" for k in sorted(part)))
    for pair, number in sorted(Counter((one.ours, one.theirs) for one in found).items()):
        print(f"  sutura {pair[0]:8} Marabou {pair[1][:60]:8} {number}")
    print(f"  sutura {sum(one.our_seconds for one in found):.1f} s", end=", ")
    print(f"Marabou {np.nansum([one.their_seconds for one in found]):.1f} s (both with reading the files)")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    return int(kinds["contradict"] > 0)


if __name__ == "__main__":
    sys.exit(main())
