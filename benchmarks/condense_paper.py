"""The experiments of arXiv 2105.11686 with their spread over seeds, and predicted lines beside the flow's.

    python benchmarks/condense_paper.py [--quick] [--seeds N] [--json FILE]

`lines` and `orientations` cover nine tenths of all neurons at cosine .95, nothing dropped; the paper shows
one seed and leaves out short neurons. The second table trains the six layers on: how few lines each layer
comes down to on each seed, and when (the first such epoch; looked at every 100). The last one has the stable
orientations computed from the data alone, and where 100 neurons come to rest under the initial flow: the
angle between the two, in degrees, at worst.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sutura.condensation.activations import ACTIVATIONS
from sutura.condensation.experiment import OWN_EPOCH, SETTINGS, points, run
from sutura.condensation.field import field, stable
from sutura.condensation.flow import normalised_flow
from sutura.condensation.orientation import count

PAPER = {"five-tanh": "1", "five-sigmoid": "1", "five-softplus": "1", "five-xtanh": "2", "five-xxtanh": "3",
         "five-relu": "3", "one-tanh": "1", "one-xtanh": "2", "one-xxtanh": "3",
         "six-layers": "3 2 1 1 1"}  # fmt: skip
LOOKS = tuple(range(300, 4001, 100))
"""Epochs at which the six-layer network is looked at when it is trained on."""

MULTIPLICITY = {"tanh": 1, "xtanh": 2, "xxtanh": 3}


def spread(name: str, seeds: int) -> list[dict[str, object]]:
    """Counts of every seed, epoch by epoch; of the six layers each at its own epoch."""
    runs = [run(SETTINGS[name], seed) for seed in range(seeds)]
    if name == "six-layers":
        own = {
            layer: [next(s for s in seen if s.epoch == epoch).counts()[layer] for seen in runs]
            for layer, epoch in OWN_EPOCH.items()
        }
        return [_row(f"{name}, layer {layer + 1}", OWN_EPOCH[layer], counts, PAPER[name].split()[layer])
                for layer, counts in own.items()]  # fmt: skip
    return [
        _row(name, runs[0][at].epoch, [seen[at].counts()[0] for seen in runs], PAPER[name])
        for at in range(len(runs[0]))
    ]


def settled(seeds: int) -> list[dict[str, object]]:
    """The six-layer network trained on: of each layer the fewest lines of every seed, and their epochs."""
    longer = replace(SETTINGS["six-layers"], epochs=LOOKS)
    runs = [run(longer, seed) for seed in range(seeds)]
    rows = list[dict[str, object]]()
    for layer in OWN_EPOCH:
        lines = np.array([[shot.counts()[layer].lines for shot in seen] for seen in runs])
        rows.append({"layer": layer + 1, "lines": lines.min(axis=1).tolist(),
                     "epochs": [LOOKS[at] for at in lines.argmin(axis=1)],
                     "paper": PAPER["six-layers"].split()[layer]})  # fmt: skip
    return rows


def _row(name: str, epoch: int, counts: list, paper: str) -> dict[str, object]:
    return {"setting": name, "epoch": epoch, "lines": [c.lines for c in counts],
            "orientations": [c.orientations for c in counts], "paper": paper}  # fmt: skip


def predicted(name: str, activation: str, steps: int) -> dict[str, object]:
    """Stable orientations of the data, and how far from them the flow's neurons rest."""
    p = MULTIPLICITY[activation]
    data = points(SETTINGS[name])
    flow = field(data.x.astype(np.float64), data.y[:, 0].astype(np.float64), p)
    found = stable(flow)
    rest = normalised_flow(flow, ACTIVATIONS[activation], steps=steps)
    cosine = abs(rest.unit @ found.unit.T).max(axis=1)
    angle = np.degrees(np.arccos(np.clip(cosine, 0, 1)))
    return {"data": name, "activation": activation, "p": p, "lines": len(found.lines),
            "orientations": len(found.unit), "flow": count(rest, 0.999, 1.0).lines,
            "worst_angle": float(angle.max())}  # fmt: skip


def main() -> None:
    """Parse the options, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="may be repeated")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, names = options.seeds, options.setting or list(SETTINGS)
    if options.quick:
        seeds, names = 2, [n for n in names if n != "six-layers"]
    rows = [row for name in names for row in spread(name, seeds)]
    table = Table("setting", "epoch", "lines: mean (min-max)", "orientations", "paper's lines")
    for r in rows:
        figures = (f"{np.mean(r[k]):.1f} ({min(r[k])}-{max(r[k])})" for k in ("lines", "orientations"))
        table.add_row(r["setting"], str(r["epoch"]), *figures, r["paper"])
    own = settled(seeds) if "six-layers" in names else []
    least = Table("layer", "fewest lines, seed by seed", "first at epoch: median (min-max)", "paper's lines")
    for r in own:
        epochs = f"{np.median(r['epochs']):.0f} ({min(r['epochs'])}-{max(r['epochs'])})"
        least.add_row(str(r["layer"]), " ".join(map(str, r["lines"])), epochs, r["paper"])
    places = [(n, a) for n in ("one-tanh", "five-tanh") for a in MULTIPLICITY]
    flows = [predicted(n, a, 1000 if options.quick else 4000) for n, a in places]
    second = Table("data", "activation", "predicted lines", "orientations", "flow's lines", "worst angle")
    for f in flows:
        second.add_row(f["data"], f["activation"], *(str(f[k]) for k in ("lines", "orientations", "flow")),
                       f"{f['worst_angle']:.2g}")  # fmt: skip
    console = Console(width=100)
    console.print(table)
    if own:
        console.print(least)
    console.print(second)
    if options.json:
        options.json.write_text(json.dumps({"counts": rows, "settled": own, "predicted": flows}, indent=1))


if __name__ == "__main__":
    main()
