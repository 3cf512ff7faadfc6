"""Post-hoc calibration of stored CIFAR-10 scores: five networks, fitted on half of the test set.

    python benchmarks/calibration_stored.py

The networks fit their training images, so both halves are test images: 5,000 to fit on and 5,000 to measure
on, in five random splits. The LeNet and WideResNet records hold probabilities; their logarithms are the
scores. Needs the evaluation data (SUTURA_DATA or ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sutura.calibration.scaling import identity, isotonic, log_probabilities, temperature, vector
from sutura.calibration.score import score
from sutura.writing import write_all

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SUTURA_DATA", ROOT.parent / "shared" / "data"))
FITS = {"as trained": identity, "temperature": temperature, "vector": vector, "isotonic": isotonic}
RECORDS = ("wideresnet-16-4-cifar-10", "lenet-5-cifar-10")


def networks():
    """Name -> scores and labels of the 10,000 test images."""
    with np.load(DATA / "cifar10" / "cifar10_test.npz") as test:
        labels = test["y"].astype(np.int64)
    with np.load(DATA / "nets" / "cifar10_test_logits.npz") as stored:
        for name in stored.files:
            if stored[name].shape == (10000, 10):
                yield name, stored[name], labels
    for name in RECORDS:
        with np.load(DATA / "calibration" / f"{name}.npz") as record:
            truth = record["ground_truth"].reshape(len(labels), -1)
            truth = truth[:, 0] if truth.shape[1] == 1 else truth.argmax(axis=1)
            held = next(record[key] for key in record.files if record[key].shape == (10000, 10))
            yield name, log_probabilities(held), truth.astype(np.int64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one split")
    parser.add_argument("--json", type=Path)
    run = parser.parse_args()
    rows = []
    print("| network | method | acc | ECE | smooth ECE | NLL | Brier |\n|" + " --- |" * 7)
    for name, scores, labels in networks():
        for method, fit in FITS.items():
            found = []
            for split in range(1 if run.quick else run.splits):
                order = np.random.default_rng(split).permutation(len(labels))
                first, second = order[:5000], order[5000:]
                scaling = fit(scores[first], labels[first])
                found.append(asdict(score(scaling(scores[second]), labels[second])))
            mean = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
            rows.append({"network": name, "method": method, **mean})
            print(
                f"| {name} | {method} | {mean['accuracy']:.4f} | {mean['ece']:.4f} | "
                f"{mean['smooth_ece']:.4f} | {mean['nll']:.4f} | {mean['brier']:.4f} |",
                flush=True,
            )
    if run.json:
        write_all({run.json: json.dumps(rows, indent=1).encode()})


if __name__ == "__main__":
    main()
