"""Fine-tuning a CIFAR-10 ResNet20 for calibration, measured on corruptions it was not tuned on.

    python benchmarks/calibration_cifar.py [--quick] [--json FILE]

The network fits its training images, so all parts are test images: the first TRAIN to fit or fine-tune on,
the next TEST to measure on, as they are and under five of the corruptions of CIFAR-10-C at severities 1, 3
and 5. Needs the evaluation data (SUTURA_DATA or ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from sutura.calibration.calibrate import calibrate
from sutura.calibration.config import CalibrateConfig
from sutura.calibration.corruption import CORRUPTIONS
from sutura.calibration.falcon import FalconConfig
from sutura.calibration.fold import network_scores
from sutura.calibration.graded import GradedConfig
from sutura.calibration.protocol import measure
from sutura.dataset import Dataset
from sutura.network.read import load
from sutura.training.config import TrainConfig
from sutura.writing import write_all

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SUTURA_DATA", ROOT.parent / "shared" / "data"))
MEASURED = ("gaussian noise", "shot noise", "gaussian blur", "contrast", "brightness")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="temperature alone, 500 and 50 images")
    parser.add_argument("--json", type=Path)
    run = parser.parse_args()
    if run.quick:
        run.train, run.test = 500, 50
    with np.load(DATA / "cifar10" / "cifar10_test.npz") as stored:
        x = np.ascontiguousarray(stored["x"][: run.train + run.test].transpose(0, 3, 1, 2) / np.float32(255))
        y = stored["y"][: run.train + run.test].astype(np.int64)
    loaded = load(DATA / "nets" / "cifar10_resnet20.onnx")
    data = Dataset("cifar10_test.npz", x[: run.train].astype(np.float32), y[: run.train])
    test = Dataset("cifar10_test.npz", x[run.train :].astype(np.float32), y[run.train :])
    shifts = [replace(s, strengths=s.strengths[::2]) for s in CORRUPTIONS if s.name in MEASURED]
    base = CalibrateConfig(
        holdout=0.1,
        allowed_drop=0.05,
        train=TrainConfig(epochs=run.epochs, batch=50, rate=1e-4),
        falcon=FalconConfig(adversarial=1.0, strengths=tuple(k * 0.005 for k in range(10))),
        graded=GradedConfig(noise=0.3, step=0.05, weight=1.0),
    )
    scores, rows = network_scores(loaded.network), []
    made = {"as trained": (lambda x: softmax(scores(x), axis=1), 0.0)}
    print("| method | acc | ECE | NLL | corrupted: acc | ECE | NLL | Brier | CPU s |\n|" + " --- |" * 9)
    for name in ("as trained", "temperature", "perturbed-temperature", "falcon", "graded"):
        if run.quick and name not in ("as trained", "temperature"):
            continue
        if name not in made:
            began = time.process_time()
            made[name] = calibrate(loaded, data, replace(base, method=name)).predict, 0.0
            made[name] = made[name][0], time.process_time() - began
        found, spent = measure(made[name][0], test.x, test.y, shifts), made[name][1]
        rows.append(
            {"method": name, "domain": asdict(found.domain), "corrupted": asdict(found.mean), "s": spent}
        )
        own, far = found.domain, found.mean
        print(
            f"| {name} | {own.accuracy:.3f} | {own.ece:.3f} | {own.nll:.3f} | {far.accuracy:.3f} | "
            f"{far.ece:.3f} | {far.nll:.3f} | {far.brier:.3f} | {spent:.0f} |",
            flush=True,
        )
        if run.json:
            write_all({run.json: json.dumps(rows, indent=1).encode()})


if __name__ == "__main__":
    main()
