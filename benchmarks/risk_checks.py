"""What the risk measures promise beside tightness: ranges, uncertainty, and the speed of a batched poll.

    python benchmarks/risk_checks.py [--quick] [--part ranges|uncertainty|poll|all] [--shape NAME]
        [--seeds N] [--budget S] [--json FILE] [--data FOLDER]

ranges: random networks of the ten published shapes (ReLU: He; tanh: Xavier uniform; biases uniform in +-0.2),
inputs in [0, 10]. A range is found where both ends are within 1 % of those of a search four times as large.
uncertainty: how near to uniform gradient steps bring the outputs of a CIFAR-10 network within Linf 0.4, and
certified radii for KL 1e-7. poll: one pattern-search poll of 2n points against the same points one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

import sutura
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.shapes import output_shape
from sutura.risk.ball import domain
from sutura.risk.boundary import Asked
from sutura.risk.deepquant import DeepQuantConfig, objective
from sutura.risk.descent import least_certain
from sutura.risk.model import model
from sutura.risk.quantify import RiskConfig, prepared, quantify_all
from sutura.risk.reach import RangeConfig, output_range
from sutura.risk.safety import Adversarial, Uncertainty, kl_to_uniform, labels

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SHAPES = (
    ("ReLU 1x100", 2, (100,), ops.Relu, 1.80),
    ("ReLU 1x200", 2, (200,), ops.Relu, 1.56),
    ("ReLU 1x500", 2, (500,), ops.Relu, 1.21),
    ("ReLU 1x500 b", 2, (500,), ops.Relu, 1.26),
    ("ReLU 1x1000", 2, (1000,), ops.Relu, 1.21),
    ("ReLU 6x250", 2, (250,) * 6, ops.Relu, 2.81),
    ("tanh 6x250, 2 inputs", 2, (250,) * 6, ops.Tanh, 2.93),
    ("tanh 6x250, 3 inputs", 3, (250,) * 6, ops.Tanh, 8.92),
    ("tanh 6x250, 4 inputs", 4, (250,) * 6, ops.Tanh, 20.94),
    ("tanh 6x250, 5 inputs", 5, (250,) * 6, ops.Tanh, 129.81),
)
"""Name, inputs, layers, activation, published seconds of DeepQuant (on its hardware)."""


def random_network(sizes: tuple[int, ...], activation: type, seed: int) -> sutura.Loaded:
    """A dense network with random weights."""
    random, nodes, shapes = np.random.default_rng(seed), list[Node](), {"x": (sizes[0],)}
    for at, (n, m) in enumerate(pairwise(sizes)):
        reach = np.sqrt((6.0 if activation is ops.Relu else 3.0) / n)
        weight = random.uniform(-reach, reach, (m, n)).astype(np.float32)
        layer = ops.Gemm(weight, random.uniform(-0.2, 0.2, m).astype(np.float32), 1.0, 1.0, True)
        for op in [activation()] * (at > 0) + [layer]:
            before, name = (nodes[-1].output if nodes else "x"), f"v{len(nodes)}"
            shapes[name] = output_shape(op, (shapes[before],))
            nodes.append(Node(name, op, (before,), name))
    return load(write_onnx(Network("random", "x", nodes[-1].output, tuple(nodes), shapes, "")))


def ranges(arguments: argparse.Namespace, say: Console) -> list[dict[str, object]]:
    """Ranges of every shape and seed."""
    rows = []
    for name, inputs, layers, activation, published in SHAPES:
        if arguments.shape not in name:
            continue
        found, excess, searched, spent = [], [], [], []
        for seed in range(arguments.seeds):
            net, limits = (
                random_network((inputs, *layers, 1), activation, seed),
                domain(np.zeros(inputs), np.full(inputs, 10.0)),
            )
            started = time.process_time()
            quick = output_range(net, 0, limits, RangeConfig(budget=1e-9, workers=1))
            searched.append(time.process_time() - started)
            large = output_range(net, 0, limits, RangeConfig(16000, 256, 160, budget=1e-9, workers=1, seed=1))
            width = large.high.attained - large.low.attained
            short = max(quick.low.attained - large.low.attained, large.high.attained - quick.high.attained)
            found.append(short <= 0.01 * width)
            started = time.process_time()
            proved = output_range(net, 0, limits, RangeConfig(budget=arguments.budget, workers=1))
            spent.append(time.process_time() - started)
            excess.append(proved.enclosure_excess)
        rows.append(
            {
                "network": name,
                "seeds": arguments.seeds,
                "range_found": float(np.mean(found)),
                "search_cpu_s": float(np.mean(searched)),
                "enclosed_within_2_percent": float(np.mean(np.array(excess) <= 0.02)),
                "worst_excess": float(np.max(excess)),
                "cpu_s": float(np.mean(spent)),
                "published_s": published,
            }
        )
        say.print(rows[-1])
    return rows


def uncertainty(arguments: argparse.Namespace, say: Console) -> list[dict[str, object]]:
    """Least KL within 0.4 and certified radii, CIFAR-10 oval21 networks and a ResNet of the bundle."""
    images = np.load(arguments.data / "cifar10" / "cifar10_test.npz")["x"]
    x = (
        (images[: arguments.images].transpose(0, 3, 1, 2) / 255.0)
        .reshape(arguments.images, -1)
        .astype(np.float32)
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.full(3, 0.225)
    ends = [np.repeat((v - mean) / std, 1024) for v in (0.0, 1.0)]
    oval = ((x.reshape(-1, 3, 1024) - mean[:, None]) / std[:, None]).reshape(len(x), -1).astype(np.float32)
    oval = np.clip(oval, *(e.astype(np.float32) for e in ends))
    cases = [("vnncomp/oval21_cifar10/onnx/cifar_base_kw.onnx", oval, domain(*ends), 1e-7)]
    if not arguments.quick:
        cases.append(("nets/cifar10_resnet20.onnx", x, domain(np.zeros(3072), np.ones(3072)), 1e-7))
    rows = []
    for file, points, limits, level in cases:
        loaded = sutura.load(arguments.data / file)
        seen = model(loaded, Uncertainty(0.0))
        started = time.process_time()
        label = labels(Uncertainty(0.0), seen.run(points).astype(np.float64))
        asked = Asked(Uncertainty(0.0), limits, "linf", points.astype(np.float64), label)
        low = least_certain(seen, asked, 0.4, arguments.steps)
        reached = kl_to_uniform(seen.run(low.astype(np.float32)).astype(np.float64))
        row: dict[str, object] = {
            "network": Path(file).name,
            "images": len(points),
            "steps": arguments.steps,
            "kl_at_start": float(np.median(kl_to_uniform(seen.run(points).astype(np.float64)))),
            "kl_median": float(np.median(reached)),
            "kl_most": float(reached.max()),
            "cpu_s": (time.process_time() - started) / len(points),
        }
        config = RiskConfig(Uncertainty(level), domain=limits, estimator="none")
        results = quantify_all(prepared(loaded, config), points[:2], config)
        row["certified"] = [r.lower for r in results]
        row["attacked"] = [r.upper for r in results]
        row["reason"] = results[0].reason
        rows.append(row)
        say.print(row)
    return rows


def poll(arguments: argparse.Namespace, say: Console) -> list[dict[str, object]]:
    """Least CPU seconds of five of one poll, batched and one by one."""
    net = random_network((784, 64, 64, 10), ops.Relu, 0)
    seen, x = model(net, Adversarial()), np.random.default_rng(0).random((1, 784)).astype(np.float32)
    label = labels(Adversarial(), seen.run(x).astype(np.float64))
    asked = Asked(Adversarial(), domain(np.zeros(784), np.ones(784)), "linf", x.astype(np.float64), label)
    measured = objective(seen, asked, DeepQuantConfig())
    points = np.clip(x + 0.5 * np.concatenate([np.eye(784), -np.eye(784)]), 0.0, 1.0)
    batched, single = [], []
    for _ in range(5):
        started = time.process_time()
        together = measured(points)
        batched.append(time.process_time() - started)
        started = time.process_time()
        alone = np.concatenate([measured(point[None]) for point in points])
        single.append(time.process_time() - started)
        assert np.allclose(together, alone, rtol=1e-3)
    row: dict[str, object] = {"points": len(points), "batched_cpu_s": min(batched)}
    row["one_by_one_cpu_s"] = min(single)
    row["ratio"] = min(single) / min(batched)
    say.print(row)
    return [row]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, one image, small budgets")
    parser.add_argument("--part", choices=["ranges", "uncertainty", "poll", "all"], default="all")
    parser.add_argument("--shape", default="", help="only ranges of shapes whose name holds this")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of proof a range")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.images, arguments.budget = 1, 2, 1.0
    say, found = Console(width=140), {}
    for part, measure in {"poll": poll, "uncertainty": uncertainty, "ranges": ranges}.items():
        if arguments.part in (part, "all"):
            found[part] = measure(arguments, say)
            table = Table(*found[part][0], title=part)
            for row in found[part]:
                table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
            say.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
