"""Calibration of a text classifier under word swap: FALCON in embedding space against its peers.

    python benchmarks/calibration_words.py [--quick] [--json FILE]

Sentence polarity (Pang and Lee 2005): 8,000 sentences to train on, 1,000 to fit on, the rest to measure on,
with 0 to 45 % of the words replaced by random ones. The network is the mean of word embeddings and two dense
layers. Two classes leave the released entropy term of FALCON without effect (there is one wrong class), so
its paper form stands beside it. Needs the evaluation data (SUTURA_DATA or ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zipfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from sutura.calibration.adversary import Space
from sutura.calibration.falcon import FalconConfig, falcon
from sutura.calibration.objective import label_smoothing, plain
from sutura.calibration.predict import ensemble_probabilities, scores_of
from sutura.calibration.protocol import measure, shift_interval
from sutura.calibration.scaling import temperature
from sutura.calibration.words import word_swap
from sutura.dataset import Dataset
from sutura.training.config import TrainConfig
from sutura.training.train import train
from sutura.writing import write_all

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SUTURA_DATA", ROOT.parent / "shared" / "data"))
WORDS, LENGTH, WIDTH = 5000, 40, 50


class Bag(nn.Module):
    """Mean of the embeddings of a sentence's words (0 is no word), dropout, two dense layers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        """Scores of sentences."""
        return self.after(self.embed(x))

    def embed(self, x):
        """Mean embeddings: where FALCON perturbs."""
        here = (x != 0).float()[:, :, None]
        return (self.table(x.long()) * here).sum(dim=1) / here.sum(dim=1).clamp(min=1)

    def after(self, h):
        """Scores of mean embeddings."""
        return self.head(h)


SPACE = Space(lambda module, x: module.embed(x), lambda module, h: module.after(h), None, None)
NEAR = tuple(0.005 * step for step in range(10))
"""Strengths in the space of mean embeddings, whose numbers deviate by about 0.2."""

OBJECTIVES = {
    "plain": plain(),
    "label smoothing": label_smoothing(0.1),
    "FALCON released": falcon(FalconConfig(adversarial=0.1, strengths=NEAR, space=SPACE)),
    "FALCON paper": falcon(
        FalconConfig(form="paper", entropy=0.1, adversarial=0.5, strengths=NEAR, space=SPACE)
    ),
    "FALCON paper, no entropy": falcon(
        FalconConfig(form="paper", entropy=0.0, adversarial=0.5, strengths=NEAR, space=SPACE)
    ),
}


def sentences():
    """Sentences as lists of words, and 1 for praise, in an order of their own."""
    with zipfile.ZipFile(DATA / "text" / "sentence_polarity.zip") as archive:
        named = {name.rsplit(".", 1)[-1]: name for name in archive.namelist() if "rt-polarity" in name}
        texts = [
            (line.split(), label)
            for label, kind in enumerate(("neg", "pos"))
            for line in archive.read(named[kind]).decode("latin-1").splitlines()
            if line.strip()
        ]
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order]


def encoded(texts, places):
    x = np.zeros((len(texts), LENGTH), np.float32)
    for row, (words, _) in enumerate(texts):
        known = [places[word] for word in words if word in places][:LENGTH]
        x[row, : len(known)] = known
    return Dataset("sentence_polarity.zip", x, np.array([label for _, label in texts]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs")
    parser.add_argument("--json", type=Path)
    run = parser.parse_args()
    if run.quick:
        run.seeds, run.epochs = [0], 2
    texts = sentences()
    common = Counter(word for words, _ in texts[:8000] for word in words).most_common(WORDS - 1)
    places = {word: place for place, (word, _) in enumerate(common, 1)}
    trained_on, fitted_on, test = (encoded(t, places) for t in (texts[:8000], texts[8000:9000], texts[9000:]))
    shift, rows = word_swap(WORDS), []
    for seed in run.seeds:
        scores, spent = {}, {}
        names = [*OBJECTIVES.items(), *((f"member {k}", OBJECTIVES["plain"]) for k in range(1, 5))]
        for k, (name, objective) in enumerate(names):
            own = seed + 100 * k if name.startswith("member") else seed
            torch.manual_seed(own)
            began = time.process_time()
            config = TrainConfig(epochs=run.epochs, batch=50, rate=3e-3, seed=own)
            scores[name] = scores_of(train(Bag(), trained_on, config, loss=objective).module)
            spent[name] = time.process_time() - began
        fit = temperature(scores["plain"](fitted_on.x), fitted_on.y)
        members = [s for name, s in scores.items() if name == "plain" or name.startswith("member")]
        predictors = {name: (lambda x, s=scores[name]: softmax(s(x), axis=1)) for name in OBJECTIVES}
        predictors["temperature"] = lambda x, s=scores["plain"], fit=fit: fit(s(x))
        predictors["ensemble of 5"] = ensemble_probabilities(members)
        for name, predict in predictors.items():
            found = measure(predict, test.x, test.y, [shift], seed=seed)
            span = shift_interval(found.shifts[0], draws=100)
            rows.append(
                {"method": name, "seed": seed, "domain": asdict(found.domain), "swapped": asdict(found.mean)}
                | {"low": span.low.ece, "high": span.high.ece, "CPU s": spent.get(name)}
            )
    print("| method | acc | ECE | swapped: acc | ECE | 95 % | NLL | Brier |\n|" + " --- |" * 8)
    for name in predictors:
        own = [row for row in rows if row["method"] == name]

        def mean(*path, own=own):
            values = [row[path[0]] if len(path) == 1 else row[path[0]][path[1]] for row in own]
            return float(np.mean(values))

        print(
            f"| {name} | {mean('domain', 'accuracy'):.3f} | {mean('domain', 'ece'):.3f} | "
            f"{mean('swapped', 'accuracy'):.3f} | {mean('swapped', 'ece'):.3f} | "
            f"{mean('low'):.3f}-{mean('high'):.3f} | {mean('swapped', 'nll'):.3f} | "
            f"{mean('swapped', 'brier'):.3f} |"
        )
    if run.json:
        write_all({run.json: json.dumps(rows, indent=1).encode()})


if __name__ == "__main__":
    main()
