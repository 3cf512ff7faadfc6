"""How tight radii are: certified over attacked, beside the published estimators and peers, in one run.

    python benchmarks/risk_tightness.py [--quick] [--part mnist|attacks|acasxu|all] [--images N]
        [--networks N] [--piece I/N] [--inputs N] [--only NET:INPUT,...] [--budget S] [--cpu]
        [--gather FILE...] [--json FILE] [--data FOLDER]

mnist: a ReLU 784-64-64-10 that this script trains (5,000 images), Linf in [0, 1]. Peers: foolbox's FMN attack
with 1,000 steps, CLEVER and DeepQuant as published, the product of the layers' norms. attacks: FMN in three
norms on three times the images, ours over it. acasxu: uniform points, Linf in units of each input's width;
`--piece 2/6` measures every sixth network from the second on, `--only 1_9:0,1_9:3` two inputs of one.
`--gather FILE...` makes one table of pieces; of an input that is in several the last counts.
Figures of mnist and acasxu are over the attacked upper bound of the same input.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

import sutura
from sutura.bounds.lower import lower
from sutura.bounds.program import Affine
from sutura.risk.ball import LENGTHS, Domain, Norm, domain, inside
from sutura.risk.boundary import Asked, BoundaryConfig
from sutura.risk.certify import largest_shown
from sutura.risk.deepquant import DeepQuantConfig
from sutura.risk.jacobian import shown_by_slopes
from sutura.risk.pattern import PatternConfig
from sutura.risk.polish import PASSES
from sutura.risk.quantify import RiskConfig, RiskResult, prepared, quantify_all
from sutura.risk.ratio import CleverConfig
from sutura.risk.safety import Adversarial, claim, labels

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FIGURES = ("input", "least", "upper", "crown", "published", "spent")
"""Kept of each input of an ACAS Xu network."""

WALKS = BoundaryConfig(walks=16, steps=50)
"""With the polish after it a thousand forward passes an input, as many as FMN with 1,000 steps."""

assert WALKS.walks * WALKS.steps + PASSES <= 1000


def timed(measure: Callable[[], np.ndarray], count: int) -> tuple[np.ndarray, float]:
    """Figures and CPU seconds an input."""
    started = time.process_time()
    found = measure()
    return found, (time.process_time() - started) / count


def trained(data: Path) -> tuple[sutura.Loaded, float]:
    """ReLU 784-64-64-10 on the first 5,000 training images, and its test accuracy."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    mnist = np.load(data / "mnist" / "mnist.npz")
    x = torch.from_numpy(mnist["x_train"][:5000].reshape(-1, 784).astype(np.float32) / 255)
    y = torch.from_numpy(mnist["y_train"][:5000].astype(np.int64))
    layers = torch.nn.Sequential(
        torch.nn.Linear(784, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(layers.parameters(), 1e-3)
    for _ in range(15):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(layers(x[batch]), y[batch]).backward()
            optimiser.step()
    test = torch.from_numpy(mnist["x_test"].reshape(-1, 784).astype(np.float32) / 255)
    right = (layers(test).argmax(1).numpy() == mnist["y_test"]).mean()
    return sutura.load(layers.eval(), example=x[:1]), float(right)


def images(loaded: sutura.Loaded, data: Path, count: int) -> np.ndarray:
    """The first test images that are classified rightly."""
    mnist = np.load(data / "mnist" / "mnist.npz")
    x = mnist["x_test"][: 4 * count].reshape(-1, 784).astype(np.float32) / np.float32(255)
    seen = prepared(loaded, RiskConfig())
    return x[labels(Adversarial(), seen.run(x)) == mnist["y_test"][: 4 * count]][:count]


def fmn(loaded: sutura.Loaded, x: np.ndarray, label: np.ndarray, norm: Norm = "linf") -> np.ndarray:
    """Distances of foolbox's FMN with 1,000 steps; not-a-number where it found nothing."""
    import foolbox
    import torch

    from sutura.network.torch_write import to_module

    shaped = torch.from_numpy(x.reshape(-1, *loaded.network.input_shape))
    model = foolbox.PyTorchModel(to_module(loaded.network), bounds=(0, 1), device="cpu")
    attacks = foolbox.attacks
    kinds = {"linf": attacks.LInfFMNAttack, "l2": attacks.L2FMNAttack, "l1": attacks.L1FMNAttack}
    attack = kinds[norm](steps=1000)
    _, found, hit = attack(model, shaped, torch.from_numpy(label), epsilons=None)
    steps = abs(found.detach().numpy().reshape(len(x), -1).astype(np.float64) - x)
    far = LENGTHS[norm](steps)
    return np.where(hit.numpy() & (far > 0), far, np.nan)


def attack_rows(arguments: argparse.Namespace, say: Console) -> dict[str, dict[str, float]]:
    """Our attack over foolbox's FMN in each norm, at as many forward passes, where FMN finds anything."""
    loaded, _ = trained(arguments.data)
    x, said = images(loaded, arguments.data, 3 * arguments.images), dict[str, dict[str, float]]()
    norms: tuple[Norm, ...] = ("linf", "l2", "l1")
    for norm in norms:
        config = RiskConfig(norm=norm, bounds="none", estimator="none", attack=WALKS)
        started = time.process_time()
        results = quantify_all(prepared(loaded, config), x, config)
        spent = (time.process_time() - started) / len(x)
        ours, label = bounds_of(results)[1], np.array([r.label for r in results])
        theirs, their_time = timed(lambda n=norm, y=label: fmn(loaded, x, y, n), len(x))
        hit = np.isfinite(theirs)
        say.print(
            f"{norm}: FMN found {hit.sum()} of {len(x)}, ours {np.isfinite(ours).sum()}; our mean over FMN's "
            f"{ours[hit].mean() / theirs[hit].mean():.4f}; CPU s an image {spent:.2f}, {their_time:.2f}"
        )
        said[norm] = share(ours, theirs, spent)
    return said


def norms_product(loaded: sutura.Loaded, margin: np.ndarray) -> np.ndarray:
    """Margin over twice the product of the layers' Linf operator norms."""
    affine = [layer for layer in lower(loaded.network).layers if isinstance(layer, Affine)]
    return margin / (2.0 * np.prod([abs(layer.weights[0]).sum(axis=1).max() for layer in affine]))


def bounds_of(results: Iterable[RiskResult]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper."""
    pairs = np.array([(r.lower, r.upper) for r in results])
    return pairs[:, 0], pairs[:, 1]


def mnist_rows(arguments: argparse.Namespace, say: Console) -> dict[str, dict[str, float]]:
    """All methods on the same images."""
    loaded, right = trained(arguments.data)
    x = images(loaded, arguments.data, arguments.images)
    say.print(f"MNIST 784-64-64-10, test accuracy {right:.4f}, {len(x)} images")
    plain = RiskConfig(estimator="none", attack=WALKS)
    seen = prepared(loaded, plain)
    results, seconds = timed(lambda: quantify_all(seen, x, plain), len(x))
    least, upper = bounds_of(results)
    rows: dict[str, tuple[np.ndarray, float]] = {"CROWN bisection (with the attack's time)": (least, seconds)}
    label = np.array([r.label for r in results])
    asked = Asked(Adversarial(), domain(np.zeros(784), np.ones(784)), "linf", x.astype(np.float64), label)
    said = claim(Adversarial(), label, 10, 0.0, np.zeros((len(x), 0, 10)))
    ball = (asked.domain, "linf", asked.centre)
    rows["local Lipschitz fixed point"] = timed(
        lambda: largest_shown(shown_by_slopes(seen.program, ball, said, lambda: None), upper), len(x)
    )
    sloped = replace(plain, bounds="slopes")
    best, spent = timed(lambda: quantify_all(seen, x, sloped), len(x))
    rows["optimised slopes (with the attack's time)"] = bounds_of(best)[0], spent
    branched = replace(plain, budget=arguments.budget, tight=0.97, workers=1)
    found, spent = timed(lambda: quantify_all(seen, x, branched), len(x))
    best_lower, best_upper = bounds_of(found)
    rows[f"branch and bound, {arguments.budget:g} s"] = best_lower * upper / best_upper, spent
    rows["FMN (foolbox), 1,000 steps"] = timed(lambda: fmn(loaded, x, label), len(x))
    margin = np.array([r.safety for r in results])
    rows["product of norms"] = norms_product(loaded, margin), 0.0
    search = PatternConfig(iterations=arguments.iterations, evaluations=10**9)
    estimators = {
        "DeepQuant, margin (estimate)": replace(
            plain, estimator="deepquant", deepquant=DeepQuantConfig(search=search)
        ),
        "DeepQuant, top logit as released (estimate)": replace(
            plain, estimator="deepquant", deepquant=DeepQuantConfig(objective="logit", search=search)
        ),
        "CLEVER (estimate)": replace(plain, estimator="clever", clever=CleverConfig(50, 256, 0.3)),
        "one-sided ratio by gradients (estimate)": replace(plain, estimator="ratio"),
    }
    for name, config in estimators.items():
        config = replace(config, bounds="none", attack=BoundaryConfig(1, 1))
        rows[name] = timed(lambda c=config: np.array([r.estimate for r in quantify_all(seen, x, c)]), len(x))
    said = {name: share(values, upper, spent) for name, (values, spent) in rows.items()}
    said["attacked upper bound"] = {
        "mean": 1.0,
        "least": 1.0,
        "most": 1.0,
        "above": 0.0,
        "inputs": float(len(x)),
        "cpu_seconds": 0.0,
    }
    return said


def share(values: np.ndarray, upper: np.ndarray, seconds: float) -> dict[str, float]:
    """Mean, least and most of values / upper, how many lie above it, and the time an input."""
    usable = np.isfinite(values) & np.isfinite(upper) & (upper > 0)
    ratio = values[usable] / upper[usable]
    return {
        "mean": float(ratio.mean()),
        "least": float(ratio.min()),
        "most": float(ratio.max()),
        "above": float((ratio > 1 + 1e-9).sum()),
        "inputs": float(usable.sum()),
        "cpu_seconds": seconds,
    }


def acas_domain(data: Path, name: str) -> Domain:
    """All inputs of an ACAS Xu network, as it takes them."""
    known = json.loads((data / "acasxu" / "normalization.json").read_text())[name]
    low, high, mean, span = (
        np.array(known[k][:5]) for k in ("input_min", "input_max", "input_mean", "input_range")
    )
    return domain((low - mean) / span, (high - mean) / span)


def acas_points(limits: Domain, seed: int, count: int) -> np.ndarray:
    """Uniform float32 points; the first are the same however many."""
    share = np.random.default_rng(seed).random((count, len(limits.low)))
    return inside(limits, limits.low + share * (limits.high - limits.low)).astype(np.float32)


def acas_rows(arguments: argparse.Namespace, say: Console) -> dict[str, dict[str, float]]:
    """Branch and bound and DeepQuant at uniform points of many networks."""
    files = sorted((arguments.data / "acasxu" / "onnx").glob("*.onnx"))
    step = max(1, len(files) // arguments.networks)
    names, least, upper, crown, published, spent = [], [], [], [], [], []
    only = [one.split(":") for one in arguments.only.split(",") if one]
    piece, pieces = (int(v) for v in arguments.piece.split("/"))
    for number, file in list(enumerate(files[::step][: arguments.networks]))[piece - 1 :: pieces]:
        name = file.stem.removeprefix("ACASXU_run2a_").removesuffix("_batch_2000")
        taken = [int(i) for net, i in only if net == name] if only else [*range(arguments.inputs)]
        if not taken:
            continue
        limits, loaded = acas_domain(arguments.data, file.stem), sutura.load(file)
        x = acas_points(limits, number, max(arguments.inputs, 1 + max(taken)))[taken]
        names += [f"{name}:{i}" for i in taken]
        plain = RiskConfig(
            Adversarial("argmin"), domain=limits, estimator="deepquant", attack=WALKS, budget=0.0
        )
        seen = prepared(loaded, plain)
        first = quantify_all(seen, x, plain)
        crown += [r.lower for r in first]
        published += [r.estimate for r in first]
        config = replace(plain, budget=arguments.budget, tight=0.981, workers=1, estimator="none")
        started = time.process_time()
        found = quantify_all(seen, x, config)
        spent += [(time.process_time() - started) / len(x)] * len(x)
        least += [r.lower for r in found]
        upper += [r.upper for r in found]
        done = np.array(least) / np.array(upper)
        say.print(
            f"{file.stem}: {[f'{v:.3f}' for v in done[-len(x) :]]}, {spent[-1]:.1f} CPU s an input; "
            f">= 0.98 on {(done >= 0.98).mean():.1%} so far"
        )
    figures = (names, least, upper, crown, published, spent)
    return acas_table(dict(zip(FIGURES, figures, strict=True)))


def acas_table(figures: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """Rows of a table from the figures of each input; they stay with the rows, to be gathered."""
    least, up, crown, published = (np.array(figures[k]) for k in ("least", "upper", "crown", "published"))
    spent = figures["spent"]
    rows: dict[str, Any] = {
        "branch and bound": share(least, up, float(np.mean(spent))),
        "CROWN bisection": share(crown, up, 0.0),
        "DeepQuant, margin (estimate)": share(published, up, 0.0),
    }
    for limit in (0.98, 0.97, 0.95, 0.9):
        rows["branch and bound"][f"at_least_{limit}"] = float((least >= limit * up).mean())
    rows["branch and bound"]["figures"] = figures
    return rows


def gathered(files: list[Path]) -> dict[str, dict[str, float]]:
    """One table of several pieces."""
    known: dict[str, list[Any]] = {}
    for file in files:
        part = json.loads(file.read_text())["acasxu"]["branch and bound"]["figures"]
        known |= {name: [part[k][i] for k in FIGURES] for i, name in enumerate(part["input"])}
    return acas_table(dict(zip(FIGURES, map(list, zip(*known.values(), strict=True)), strict=True)))


def shown(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """One line a method."""
    table = Table("method", "mean / upper", "least", "most", "above", "inputs", "CPU s", title=title)
    for name, r in rows.items():
        figures = (f"{r['mean']:.4g}", f"{r['least']:.3g}", f"{r['most']:.3g}")
        table.add_row(name, *figures, f"{r['above']:.0f}", f"{r['inputs']:.0f}", f"{r['cpu_seconds']:.2f}")
    return table


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 images, 2 networks, small budgets")
    parser.add_argument("--part", choices=["mnist", "attacks", "acasxu", "all"], default="all")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--networks", type=int, default=45)
    parser.add_argument("--inputs", type=int, default=5)
    parser.add_argument("--piece", default="1/1", help="of the ACAS Xu networks")
    parser.add_argument("--only", default="", help="inputs of ACAS Xu networks, as 1_9:0,1_9:3")
    parser.add_argument("--gather", type=Path, nargs="+", help="files of the pieces; measures nothing")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of branch and bound an input")
    parser.add_argument(
        "--cpu", action="store_true", help="budgets in CPU seconds: others use the machine too"
    )
    parser.add_argument("--iterations", type=int, default=300, help="of DeepQuant's search on MNIST")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.networks, arguments.inputs = 3, 2, 2
        arguments.budget, arguments.iterations = 2.0, 30
    say, found = Console(width=120), {}
    if arguments.gather:
        rows = gathered(arguments.gather)
        say.print(shown("acasxu", rows))
        say.print({k: v for k, v in rows["branch and bound"].items() if k.startswith("at_least")})
        return
    if arguments.cpu:
        clock = SimpleNamespace(monotonic=time.process_time)
        mock.patch("sutura.verdict.deadline.time", clock).start()
    for part, measure in {"mnist": mnist_rows, "attacks": attack_rows, "acasxu": acas_rows}.items():
        if arguments.part in (part, "all"):
            found[part] = measure(arguments, say)
            say.print(shown(part, found[part]))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
