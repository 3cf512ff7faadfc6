"""Solve the dynamic program, fit the network to its table, check both, write the network and its properties.

Each advisory's target is what it costs more than the best one, cut off and scaled to [0, 1]: below the
cut-off the network learns by how much an advisory is worse, above it only that it is. Fitting is least
squares with Adam, in numpy alone. Nothing is written unless the table obeys every rule and the network agrees
with the table and breaks, on a small part of its box, the rule that the example repairs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from advisory_network import CENTRE, SCALE, Layers, activations, normalise, onnx_model, run_onnx
from advisory_properties import RULES, sample, table_margin, violations, vnnlib
from dynamic_program import ADVISORIES, Table, grid_states, solve, standard_grid, within
from jaxtyping import Float32, Float64


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Grid states in the network's domain, their normalised inputs, and each advisory's cost there."""

    states: Float64[np.ndarray, "n 3"]
    inputs: Float32[np.ndarray, "n 3"]
    cost: Float64[np.ndarray, "n advisory"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the network's advice compares with the table's over all lessons.

    `everywhere`: share of states with the same advisory. `alerting`: that share among the states where either
    gives an alert. `regret`: mean extra cost of following the network for a second, then the table.
    """

    everywhere: float
    alerting: float
    regret: float


Arrays = tuple[Float32[np.ndarray, "..."], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Adam:
    """Parameters with their running first and second moments."""

    parameters: Arrays
    mean: Arrays
    square: Arrays


def lessons(table: Table) -> Lessons:
    """The part of the table that the network is for: |h| <= 800 ft, |v| <= 40 ft/s, tau from 1 s to 32 s."""
    states = grid_states(table.grid)
    reach = np.array(SCALE)
    kept = within(states, tuple(CENTRE - reach), tuple(CENTRE + reach))
    cost = table.cost.reshape(-1, len(ADVISORIES))
    return Lessons(states[kept], normalise(states[kept]), cost[kept])


def fit(taught: Lessons, steps: int, seed: int) -> Layers:
    """Train from scratch; the same steps and seed give the same network on the same machine."""
    rng = np.random.default_rng(seed)
    target = np.minimum(taught.cost - taught.cost.min(axis=1, keepdims=True), CUT_OFF) / CUT_OFF
    goal = target.astype(np.float32)
    start = untrained(rng, goal.mean(axis=0))
    zero = tuple(np.zeros_like(p) for p in start)
    adam = Adam(start, zero, zero)
    for step in range(steps):
        batch = rng.integers(0, len(goal), BATCH)
        slope = gradient(split(adam.parameters), taught.inputs[batch], goal[batch])
        rate = LEARNING_RATE * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        adam = adam_step(adam, slope, float(rate), step + 1)
    return split(adam.parameters)


def untrained(rng: np.random.Generator, mean: Float32[np.ndarray, " advisory"]) -> Arrays:
    """Random weights of the usual scale for ReLU, zero biases but for the last, which is the mean target."""
    sizes = (len(SCALE), *HIDDEN, len(mean))
    weights = [rng.normal(0.0, np.sqrt(2.0 / n), (n, m)).astype(np.float32) for n, m in pairwise(sizes)]
    return (*weights, *(np.zeros(n, np.float32) for n in HIDDEN), mean)


def split(parameters: Arrays) -> Layers:
    """The flat tuple that Adam works on (weights, then biases) as layers."""
    half = len(parameters) // 2
    return Layers(parameters[:half], parameters[half:])


def gradient(
    layers: Layers, inputs: Float32[np.ndarray, "n 3"], goal: Float32[np.ndarray, "n advisory"]
) -> Arrays:
    """Slope of the mean over samples of the summed squared error, by back-propagation."""
    values = activations(layers, inputs)
    error = 2.0 * (values[-1] - goal) / np.float32(len(goal))
    weights: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    for weight, value in zip(reversed(layers.weights), reversed(values[:-1]), strict=True):
        weights.insert(0, value.T @ error)
        biases.insert(0, error.sum(axis=0))
        # A hidden value is positive just where its ReLU passes the slope; the last turn's result goes unused.
        error = (error @ weight.T) * (value > 0)
    return (*weights, *biases)


def adam_step(adam: Adam, slope: Arrays, rate: float, step: int) -> Adam:
    """One step of Adam at its usual decay rates; `step` counts from 1."""
    mean = tuple(0.9 * m + 0.1 * g for m, g in zip(adam.mean, slope, strict=True))
    square = tuple(0.999 * s + 0.001 * g * g for s, g in zip(adam.square, slope, strict=True))
    size, spread = rate / (1.0 - 0.9**step), 1.0 - 0.999**step
    moves = (size * m / (np.sqrt(s / spread) + 1e-8) for m, s in zip(mean, square, strict=True))
    return Adam(tuple(p - d for p, d in zip(adam.parameters, moves, strict=True)), mean, square)


def agreement(model: bytes, taught: Lessons) -> Agreement:
    """Compare an ONNX network with the table at every grid state of its domain."""
    advice = run_onnx(model, taught.inputs).argmin(axis=1)
    best = taught.cost.argmin(axis=1)
    alert = (advice > 0) | (best > 0)
    regret = taught.cost[np.arange(len(best)), advice] - taught.cost.min(axis=1)
    same = advice == best
    return Agreement(float(same.mean()), float(same[alert].mean()), float(regret.mean()))


def check_table(table: Table) -> None:
    """Raise SystemExit unless the table obeys every rule."""
    for rule in RULES:
        margin = table_margin(table, rule)
        print(f"table   {rule.name:12} margin {margin:.6f}")
        if margin <= 0.0:
            raise SystemExit(f"rule {rule.name}: the dynamic program itself breaks it; shrink its box")


def check_network(model: bytes, taught: Lessons) -> None:
    """Raise SystemExit unless the network agrees with the table and breaks the rule it is shipped to show."""
    found = agreement(model, taught)
    print(f"network agrees {found.everywhere:.4f}, alerting {found.alerting:.4f}, regret {found.regret:.2e}")
    if found.everywhere < LEAST_AGREEMENT or found.alerting < LEAST_ALERTING_AGREEMENT:
        raise SystemExit(
            f"agreement below {LEAST_AGREEMENT} ({LEAST_ALERTING_AGREEMENT} alerting): train longer"
        )
    shares = {rule.name: float(violations(model, rule, sample(rule, 1_000_000, 0)).mean()) for rule in RULES}
    for name, share in shares.items():
        print(f"network {name:12} breaks it on {share:.3%} of the box")
    if not 0.0 < shares[BROKEN] <= MOST_BROKEN:
        raise SystemExit(f"rule {BROKEN}: broken on {shares[BROKEN]:.3%} of its box, not a small part of it")


def main() -> None:
    """Write vertical_cas.onnx and one VNN-LIB file a rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    folder: Path = parser.parse_args().out
    table = solve(standard_grid())
    check_table(table)
    taught = lessons(table)
    model = onnx_model(fit(taught, STEPS, SEED)).SerializeToString(deterministic=True)
    check_network(model, taught)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vertical_cas.onnx").write_bytes(model)
    for rule in RULES:
        (folder / f"{rule.name}.vnnlib").write_text(vnnlib(rule), encoding="ascii", newline="\n")


HIDDEN = (32, 32, 32)
STEPS = 8_000
BATCH = 512
LEARNING_RATE = 0.01
SEED = 0

CUT_OFF = 0.01
"""Extra cost beyond which an advisory is just wrong: that of five seconds of alert."""

LEAST_AGREEMENT = 0.97
LEAST_ALERTING_AGREEMENT = 0.85

BROKEN = "no_climb"
"""The rule that the network breaks, and on how much of its box at most."""

MOST_BROKEN = 0.03

if __name__ == "__main__":
    main()
