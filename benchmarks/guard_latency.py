"""What the guard adds to the latency of a network: p50 and p99 of single samples, against the bare session.

    python benchmarks/guard_latency.py --json guard_latency.json

The bare session is ONNX Runtime on the same repaired file, called as one calls it without sutura; both are
timed in turn, sample by sample, on one thread. The wide network is of the size of an MNIST classifier.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

import sutura
from sutura.network.run import load_runtime
from sutura.runtime import Guard, GuardConfig

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "vertical_cas"


def example():
    """The repaired example of this repository."""
    loaded = sutura.load(EXAMPLE / "vertical_cas.onnx")
    return loaded, [sutura.read_property(EXAMPLE / f"{name}.vnnlib") for name in ("no_climb", "alert")]


def wide(inputs: int = 784, hidden: int = 512):
    """A random network of the size of an MNIST classifier, with one robustness property."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    sizes = [inputs, hidden, hidden, hidden, 10]
    nodes, tensors, name = [], [], "x"
    for at, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight = (draw.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32)
        tensors.append(numpy_helper.from_array(weight, f"w{at}"))
        last = at == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [name, f"w{at}"], ["y" if last else f"h{at}"]))
        name = f"h{at}"
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"r{at}"]))
            name = f"r{at}"
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", inputs), ("y", 10))
    ]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    loaded = sutura.load(model.SerializeToString())
    return loaded, [sutura.robustness(np.full(inputs, 0.5), 0.01, 3, classes=10)]


def measured(build, samples: int) -> dict[str, float]:
    """Seconds of both at p50 and p99, their ratios, and what the guard adds."""
    loaded, properties = build()
    fixed = sutura.repair(loaded, properties, sutura.RepairConfig(boxes=200, workers=1))
    guard = Guard(fixed.onnx, fixed.certificate, properties, config=GuardConfig(check=False))
    runtime = load_runtime(fixed.onnx)
    names = [runtime.get_outputs()[0].name], runtime.get_inputs()[0].name
    low, high = properties[0].cases[0].box.float32_inside()
    points = np.random.default_rng(1).uniform(low, high, (samples, len(low))).astype(np.float32)
    points = np.clip(points, low, high)
    took = np.empty((2, samples))
    for at in range(-100, samples):
        x = points[at % samples][None]
        moments = [time.perf_counter()]
        runtime.run(names[0], {names[1]: x})
        moments.append(time.perf_counter())
        guard(x)
        moments.append(time.perf_counter())
        if at >= 0:
            took[:, at] = np.diff(moments)
    (bare50, guard50), (bare99, guard99) = np.percentile(took, [50, 99], axis=1)
    return {
        "bare p50 us": bare50 * 1e6,
        "guarded p50 us": guard50 * 1e6,
        "ratio p50": guard50 / bare50,
        "bare p99 us": bare99 * 1e6,
        "guarded p99 us": guard99 * 1e6,
        "ratio p99": guard99 / bare99,
        "added p50 us": (guard50 - bare50) * 1e6,
        "gate rows": float(len(guard.tally.gate_rows)),
    }


def main() -> None:
    """Print one column a network, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="1,000 samples")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    samples = 1000 if given.quick else given.samples
    found = {name: measured(build, samples) for name, build in NETWORKS.items()}
    print(f"{'':16}" + "".join(f"{name:>16}" for name in found))
    for key in next(iter(found.values())):
        print(f"{key:16}" + "".join(f"{row[key]:16.3g}" for row in found.values()))
    if given.json:
        given.json.write_text(json.dumps({"samples": samples, "rows": found}, indent=2))


NETWORKS = {"vertical_cas": example, "784-512x3-10": wide}

if __name__ == "__main__":
    main()
