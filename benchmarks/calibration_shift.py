"""Calibration in domain and under shift: every method on MNIST in one run, with ratios against the peers.

    python benchmarks/calibration_shift.py --quick                      # under a minute
    python benchmarks/calibration_shift.py --networks mlp --seeds 0 1 2 --json FILE

Each network is trained by each method on the first TRAIN training images and measured on the first TEST test
images: as they are, on the nine affine shifts of FALCON at ten strengths, and on seven corruptions at five.
Beside the JSON file lie the checkpoints of training; the same command goes on where it was stopped. Needs the
evaluation data (SUTURA_DATA or ../shared/data).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from sutura.calibration.affine import NINE
from sutura.calibration.class_distance import by_class, class_gaussians
from sutura.calibration.corruption import CORRUPTIONS
from sutura.calibration.distance import by_distance, gaussian
from sutura.calibration.falcon import FalconConfig, falcon
from sutura.calibration.graded import graded
from sutura.calibration.noise import perturbed_samples, perturbed_validation
from sutura.calibration.objective import adversarial, evidential, label_smoothing, plain
from sutura.calibration.predict import dropout_probabilities, ensemble_probabilities, evidence, heard
from sutura.calibration.protocol import measure, measure_each, shift_interval
from sutura.calibration.scaling import isotonic, temperature, vector
from sutura.dataset import Dataset
from sutura.training.config import TrainConfig
from sutura.training.train import train
from sutura.writing import write_all

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SUTURA_DATA", ROOT.parent / "shared" / "data"))
PENALTY = 1e-4
MEMBERS = 5
NEAREST, CLASSED = 1000, 10000
"""Training images that say what is near, and what is near a class."""


def mlp():
    """784-256-84-10 with dropout."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(256, 84), nn.ReLU(), nn.Dropout(0.5), nn.Linear(84, 10)),
    )


def lenet():
    """The LeNet of FALCON's release; channels last is a quarter faster on a CPU."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 48, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1200, 256), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(256, 84), nn.ReLU(), nn.Dropout(0.5), nn.Linear(84, 10)),
    )
    return layers.to(memory_format=torch.channels_last)


NETWORKS = {"mlp": mlp, "lenet": lenet}

OBJECTIVES = {
    "L2-dropout": plain(PENALTY),
    "label smoothing": label_smoothing(0.1, PENALTY),
    "evidential": evidential(10, PENALTY),
    "FALCON released": falcon(FalconConfig(penalty=PENALTY)),
    "FALCON released, entropy only": falcon(FalconConfig(adversarial=0.0, penalty=PENALTY)),
    "FALCON released, entropy weight 3": falcon(FalconConfig(entropy=3.0, penalty=PENALTY)),
    "FALCON paper": falcon(FalconConfig(form="paper", entropy=0.3, adversarial=1.0, penalty=PENALTY)),
    "graded (ours)": graded(),
}


def part(images, labels, first, last):
    x = (images[first:last, None] / np.float32(255)).astype(np.float32)
    return Dataset("mnist.npz", x, labels[first:last].astype(np.int64))


def trained(network, name, objective, seed, run):
    """A module and the CPU seconds its training took; kept as a checkpoint."""
    torch.manual_seed(seed)
    config = TrainConfig(epochs=run.epochs, batch=100, seed=seed)
    folder = run.json.with_suffix(".checkpoints") if run.json else None
    place = None
    if folder:
        folder.mkdir(exist_ok=True)
        slug = f"{network} {name} {run.train} {run.epochs} {seed}".replace(" ", "-").replace(",", "")
        place = folder / f"{slug}.safetensors"
    began = time.process_time()
    result = train(NETWORKS[network](), run.data["train"], config, loss=objective, checkpoint=place)
    spent = time.process_time() - began
    if result.resumed < run.epochs:
        run.seconds[place.stem if place else name] = spent * run.epochs / (run.epochs - result.resumed)
    return result.module, run.seconds.get(place.stem if place else name, float("nan"))


def remembered(module):
    """The module's scores and features; those of the samples asked for last are kept."""
    last = {}

    def both(x):
        if last.get("x") is not x:
            with torch.no_grad():
                parts = [heard(module, torch.tensor(x[at : at + 1000])) for at in range(0, len(x), 1000)]
            z, h = (np.concatenate([part[i].numpy() for part in parts]) for i in (0, 1))
            last.update(x=x, z=z.astype(np.float64), h=h.astype(np.float64))
        return last["z"], last["h"]

    return (lambda x: both(x)[0]), (lambda x: both(x)[1])


def soft(scores):
    return lambda x: softmax(scores(x), axis=1)


def doubted(scores):
    return lambda x: evidence(scores(x))


MAPS = {"evidential": doubted}


def always(scores, level):
    """The decisions of the scores, each with the same confidence."""

    def predict(x):
        z = scores(x)
        p = np.full(z.shape, (1 - level) / (z.shape[1] - 1))
        p[np.arange(len(z)), z.argmax(axis=1)] = level
        return p

    return predict


def mapped(scaling, scores):
    return lambda x: scaling(scores(x))


def two_temperatures(scores, run, seed):
    """One by the validation images near the training images, one far from them fitted under noise."""
    x, y = run.data["validation"].x, run.data["validation"].y
    away, truth = perturbed_samples(scores, x, y, seed)
    away, truth = away[len(x) :], truth[len(x) :]
    scale = by_distance(run.near, (x, scores(x), y), (away, scores(away), truth))
    return lambda x: scale(scores(x), x)


def by_features(scores, features, run):
    """Surer where features are those of the class named: training images say which, validation how much."""
    known, checked = run.data["train"], run.data["validation"]
    held = class_gaussians(features(known.x[:CLASSED]), known.y[:CLASSED], 10)
    scale = by_class(held, scores(checked.x), features(checked.x), checked.y)
    return lambda x: scale(scores(x), features(x))


def methods(network, seed, run):
    """Method -> a function that gives its predictor and the CPU seconds of making it."""
    checked = run.data["validation"]

    @functools.cache
    def grown(name, member=0):
        objective = adversarial(0.01, PENALTY) if name == "adversarial" else OBJECTIVES[name]
        module, spent = trained(network, name, objective, seed + 100 * member, run)
        return module, *remembered(module), spent

    def fitted(fit, name="L2-dropout", *, noisy=False):
        _, scores, _, spent = grown(name)
        z, y = scores(checked.x), checked.y
        if noisy:
            z, y = perturbed_validation(scores, checked.x, checked.y, seed)
        return mapped(fit(z, y), scores), spent

    def made(name):
        _, scores, _, spent = grown(name)
        return MAPS.get(name, soft)(scores), spent

    def near(name, *, classes=True):
        _, scores, features, spent = grown(name)
        if classes:
            return by_features(scores, features, run), spent
        return two_temperatures(scores, run, seed), spent

    def ensemble(name):
        members = [grown(name, k) for k in range(MEMBERS)]
        return ensemble_probabilities([z for _, z, _, _ in members]), sum(spent for *_, spent in members)

    def dropping():
        module, *_, spent = grown("L2-dropout")
        return dropout_probabilities(module, passes=10, seed=seed), spent

    def constant():
        _, scores, _, spent = grown("L2-dropout")
        level = measure(soft(scores), checked.x[:1000], checked.y[:1000], NINE).mean.accuracy
        return always(scores, level), spent

    return {
        "L2-dropout": lambda: made("L2-dropout"),
        "temperature": lambda: fitted(temperature),
        "vector": lambda: fitted(vector),
        "isotonic": lambda: fitted(isotonic),
        "perturbed temperature": lambda: fitted(temperature, noisy=True),
        "constant confidence": constant,
        "uniform": lambda: (lambda x: np.full((len(x), 10), 0.1), 0.0),
        "FALCON released": lambda: made("FALCON released"),
        "FALCON released + temperature": lambda: fitted(temperature, "FALCON released"),
        "graded (ours)": lambda: made("graded (ours)"),
        "graded + temperature (ours)": lambda: fitted(temperature, "graded (ours)"),
        "graded + class distance (ours)": lambda: near("graded (ours)"),
        "distance temperature (ours)": lambda: near("L2-dropout", classes=False),
        "label smoothing": lambda: made("label smoothing"),
        "evidential": lambda: made("evidential"),
        "FALCON released, entropy only": lambda: made("FALCON released, entropy only"),
        "FALCON released, entropy weight 3": lambda: made("FALCON released, entropy weight 3"),
        "FALCON paper": lambda: made("FALCON paper"),
        "MC-dropout (10)": dropping,
        "ensemble of 5": lambda: ensemble("L2-dropout"),
        "adversarial ensemble of 5": lambda: ensemble("adversarial"),
    }


def row(affine, corrupted, spent, draws):
    """Figures of a predictor in domain and under both families of shifts."""
    spans = [shift_interval(shift, draws=draws) for shift in affine.shifts]
    return {
        "domain": asdict(affine.domain),
        "affine": asdict(affine.mean),
        "corruptions": asdict(corrupted.mean),
        "affine ECE each": {s.shift.name: s.pooled.ece for s in affine.shifts},
        "affine ECE by strength": {s.shift.name: [p.ece for p in s.strengths] for s in affine.shifts},
        "mean ECE interval": [
            float(np.mean([s.low.ece for s in spans])),
            float(np.mean([s.high.ece for s in spans])),
        ],
        "train CPU s": spent,
    }


def table(rows):
    """Means over seeds as Markdown."""
    lines = [
        "| network | method | seeds | acc | ECE | 9 shifts: ECE | 95 % | acc | NLL | Brier | "
        "ECE, 7 corruptions | training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups = {}
    for key, value in rows.items():
        network, method, _ = key.split("|")
        groups.setdefault((network, method), []).append(value)
    for (network, method), values in groups.items():

        def mean(*path, values=values):
            return float(np.mean([_at(v, path) for v in values]))

        base = groups.get((network, "L2-dropout"))
        ratio = mean("train CPU s") / np.mean([v["train CPU s"] for v in base]) if base else float("nan")
        low, high = mean("mean ECE interval", 0), mean("mean ECE interval", 1)
        nll, brier = mean("affine", "nll"), mean("affine", "brier")
        lines.append(
            f"| {network} | {method} | {len(values)} | {mean('domain', 'accuracy'):.3f} | "
            f"{mean('domain', 'ece'):.3f} | {mean('affine', 'ece'):.3f} | {low:.3f}-{high:.3f} | "
            f"{mean('affine', 'accuracy'):.3f} | {nll:.2f} | {brier:.3f} | "
            f"{mean('corruptions', 'ece'):.3f} | {ratio:.1f}x |"
        )
    for network in dict.fromkeys(n for n, _ in groups):
        ece = {m: np.mean([v["affine"]["ece"] for v in vs]) for (n, m), vs in groups.items() if n == network}
        for ours in ("FALCON released", "graded + class distance (ours)"):
            for peer in ("L2-dropout", "temperature", "ensemble of 5", "FALCON released"):
                if ours in ece and peer in ece and ours != peer:
                    lines.append(f"\n{network}: mean ECE of {ours} / {peer} = {ece[ours] / ece[peer]:.2f}")
    return "\n".join(lines)


def _at(value, path):
    for step in path:
        value = value[step]
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mlp", "lenet"], choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", help="all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=55000)
    parser.add_argument("--test", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="MLP, one seed, 1,000 images, 3 epochs")
    parser.add_argument("--json", type=Path)
    run = parser.parse_args()
    if run.quick:
        run.networks, run.seeds, run.train, run.test, run.epochs = ["mlp"], [0], 1000, 100, 3
    with np.load(DATA / "mnist" / "mnist.npz") as mnist:
        run.data = {
            "train": part(mnist["x_train"], mnist["y_train"], 0, run.train),
            "validation": part(mnist["x_train"], mnist["y_train"], 55000, 55000 + min(5000, run.test)),
        }
        test = part(mnist["x_test"], mnist["y_test"], 0, run.test)
    run.near = gaussian(run.data["train"].x[:NEAREST])
    what = {"train": run.train, "test": run.test, "epochs": run.epochs, "batch": 100, "rate": 1e-3}
    rows, run.seconds = {}, {}
    if run.json and run.json.exists():
        stored = json.loads(run.json.read_text())
        if stored["run"] != what:
            parser.error(f"{run.json} holds a run of {stored['run']}, not {what}; name another file")
        rows, run.seconds = stored["rows"], stored["seconds"]
    for seed in run.seeds:
        for network in run.networks:
            every = methods(network, seed, run)
            missing = [n for n in run.methods or every if f"{network}|{n}|{seed}" not in rows]
            made = {name: every[name]() for name in missing}
            predictors = {name: predict for name, (predict, _) in made.items()}
            affine, corrupted = (
                measure_each(predictors, test.x, test.y, shifts) for shifts in (NINE, CORRUPTIONS)
            )
            for name, (_, spent) in made.items():
                found = row(affine[name], corrupted[name], spent, 10 if run.quick else 50)
                rows[f"{network}|{name}|{seed}"] = found
                own, away = found["domain"]["ece"], found["affine"]["ece"]
                print(f"{network}|{name}|{seed}: ECE {own:.3f}, mean {away:.3f}", flush=True)
            if run.json:
                stored = {"run": what, "rows": rows, "seconds": run.seconds}
                write_all({run.json: json.dumps(stored).encode()})
    print(table(rows))


if __name__ == "__main__":
    main()
