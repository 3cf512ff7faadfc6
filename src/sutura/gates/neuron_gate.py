"""Hold hidden neurons at constants in a region (Dong et al., Towards Repairing Neural Networks Correctly).

The neuron with the largest gradient of the loss at a counterexample is held at max(0, value - rate *
gradient), again and again until the counterexample is repaired; then the region is verified with the gates in
place. Where the verifier finds the region still open, a new counterexample is taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.bounds.gradient import gradients
from sutura.bounds.lower import Hold, lower, lower_traced
from sutura.bounds.program import Program, run
from sutura.gates.cells import Box32, Tree, cells
from sutura.gates.cover import Budget, cover
from sutura.gates.gate import NeuronGate
from sutura.network.graph import Network
from sutura.network.ops import Relu
from sutura.progress import silent
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.deadline import Deadline
from sutura.verdict.goal import Goal, unsafe_margin


@dataclass(frozen=True, slots=True)
class NeuronConfig:
    """Share of the hidden neurons that may be held (alpha), changes a neuron (beta), rate of a change (eta);
    proof attempts for each region, and boxes for each of these."""

    share: float = 0.05
    changes: int = 50
    rate: float = 0.35
    attempts: int = 6
    boxes: int = 1500


@dataclass(frozen=True, slots=True)
class Held:
    """A gate with which the region is proved safe, and the proof tree over the region (all cells proved)."""

    gate: NeuronGate
    proof: Tree[bool]


def hold_neurons(
    network: Network,
    aim: Goal,
    box: Box32,
    config: NeuronConfig,
    run_with: tuple[Executor, Deadline],
) -> Held | None:
    """A neuron gate that makes the whole box provably safe, or None where the method does not find one."""
    pool, deadline = run_with
    holds: Mapping[str, Hold] = no_holds(network)
    changed: dict[tuple[str, int], int] = {}
    most = max(1, int(config.share * sum(len(hold.mask) for hold in holds.values())))
    for _ in range(config.attempts):
        program, at = lower_traced(network, holds)
        point = counterexample(program, aim, box)
        if point is not None:
            holds = _repair_point((network, aim, at), point, (holds, changed), (config, most, deadline))
        if deadline.passed:
            return None
        gate = NeuronGate({name: hold for name, hold in holds.items() if hold.mask.any()})
        done = cover(lower(network, gate.holds), aim, box, Budget(config.boxes, deadline), (pool, silent))
        if gate.neurons and all(cells(done.tree)):
            return Held(gate, done.tree)
        if point is None or len(changed) > most:
            return None
    return None


def no_holds(network: Network) -> dict[str, Hold]:
    """Nothing held, for every hidden value that comes out of a ReLU: the neurons that the method holds."""
    hidden = [n.output for n in network.nodes if isinstance(n.op, Relu) and n.output != network.output]
    return {name: _nothing(network, name) for name in hidden}


def _nothing(network: Network, value: str) -> Hold:
    size = int(np.prod(network.shapes[value]))
    return Hold(np.zeros(size, bool), np.zeros(size, np.float32))


def counterexample(program: Program, aim: Goal, box: Box32) -> Float64[np.ndarray, " n"] | None:
    """An input of the box that a gradient search finds unsafe, in float64 (an estimate)."""
    found = attack(program, aim, box.low, box.high, AttackConfig(starts=32, steps=25))[:1]
    margin = unsafe_margin(aim, run(program, found)[-1])[0]
    return found[0] if margin.min() <= 0 else None


def _repair_point(
    problem: tuple[Network, Goal, Mapping[str, int]],
    point: Float64[np.ndarray, " n"],
    state: tuple[Mapping[str, Hold], dict[tuple[str, int], int]],
    limits: tuple[NeuronConfig, int, Deadline],
) -> Mapping[str, Hold]:
    """Hold neurons until the point is safe with a little room, or no neuron may be changed any more."""
    network, aim, at = problem
    holds, changed = state
    config, most, deadline = limits
    while not deadline.passed:
        program, _ = lower_traced(network, holds)
        values = run(program, point[None])
        margins = unsafe_margin(aim, values[-1])[0]
        if margins.min() > 1e-4 * float(abs(values[-1]).max()):
            break
        flow = gradients(
            program, values, -aim.rows[_easiest(aim, values[-1][0], int(margins.argmin()))][None]
        )
        choice = _choose(flow, values, {name: at[name] for name in holds}, (changed, config, most))
        if choice is None:
            break
        name, neuron, value = choice
        changed[name, neuron] = changed.get((name, neuron), 0) + 1
        holds = {**holds, name: with_neuron(holds[name], neuron, value)}
    return holds


def _easiest(aim: Goal, output: Float64[np.ndarray, " m"], conjunction: int) -> int:
    """The inequality of the conjunction that is nearest to failing; raising its side helps most."""
    gap = aim.rows @ output - aim.bounds
    return int(np.where(aim.members[conjunction], gap, -np.inf).argmax())


def _choose(
    flow: Mapping[int, np.ndarray],
    values: list[np.ndarray],
    at: Mapping[str, int],
    limits: tuple[Mapping[tuple[str, int], int], NeuronConfig, int],
) -> tuple[str, int, float] | None:
    """The neuron of largest |gradient| that may still move, and its new constant."""
    changed, config, most = limits
    best: tuple[float, str, int, float] | None = None
    for name, place in at.items():
        slope, value = flow[place][0], values[place][0]
        for neuron in np.argsort(-abs(slope), kind="stable")[: most + config.changes]:
            key = (name, int(neuron))
            full = len(changed) >= most and key not in changed
            blocked = value[neuron] <= 0 and slope[neuron] >= 0
            if full or blocked or changed.get(key, 0) >= config.changes or slope[neuron] == 0:
                continue
            size = float(abs(slope[neuron]))
            if best is None or size > best[0]:
                best = (size, name, int(neuron), max(0.0, float(value[neuron] - config.rate * slope[neuron])))
            break
    return None if best is None else best[1:]


def with_neuron(hold: Hold, neuron: int, value: float) -> Hold:
    """One more neuron held, or one held at another value."""
    mask, values = hold.mask.copy(), hold.value.copy()
    mask[neuron], values[neuron] = True, np.float32(value)
    return Hold(mask, values)
