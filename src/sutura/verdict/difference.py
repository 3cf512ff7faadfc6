"""diff(): how far two networks differ on a region, from both sides, and whether they can decide otherwise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.lower import lower
from sutura.bounds.pair import Pair, pair
from sutura.bounds.region import Region
from sutura.certificate.claim import Claim, claim
from sutura.display import Displayed
from sutura.errors import MismatchError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.network.run import Session, open_session, run
from sutura.progress import Listener, silent
from sutura.property.spec import Property
from sutura.verdict.agreement import Decision, decided, same_share
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.goal import Goal
from sutura.verdict.narrowing import bounded, narrowed

FEW_INPUTS = 16
"""Cutting the inputs pays up to here; above, the region's own boxes are bounded unless more are asked for."""

MOST_BOXES = 2000
BISECTIONS = 40
"""Steps that take a segment between two decisions down to neighbouring float32 points."""


@dataclass(frozen=True, slots=True)
class DiffConfig:
    """`boxes` to bound at most for each question (None: 2,000 where inputs are few, else the region's own).

    `samples` random points are run besides the attack's; `timeout` is in wall seconds for the whole.
    """

    boxes: int | None = None
    samples: int = 4096
    timeout: float | None = None
    seed: int = 0
    decision: Decision = "argmax"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An input of the region, and what ONNX Runtime gave for it from each network."""

    input: Float32[np.ndarray, " n"]
    first: Float32[np.ndarray, " m"]
    second: Float32[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, eq=False)
class Difference(Displayed):
    """first - second on a region: low <= difference <= high, output by output.

    These are sound for float32 execution of both networks, as `claim` says; `separate` are what the networks'
    own bounds give over the same boxes. `attained` are the least and largest differences that were seen in
    ONNX Runtime, the widest at `widest`. `same_share` is the part of the region (0 to 1) on which both are
    proved to decide alike, `changed` an input where they were seen not to.
    """

    low: Float64[np.ndarray, " m"]
    high: Float64[np.ndarray, " m"]
    separate: tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]
    attained: tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]
    widest: Seen
    same_share: float
    changed: Seen | None
    claim: Claim
    boxes: int
    seconds: float

    @property
    def largest(self) -> float:
        """No output differs by more."""
        return _size(self.low, self.high)

    @property
    def largest_seen(self) -> float:
        """Some output differs by this much."""
        return _size(*self.attained)

    @property
    def decides_alike(self) -> bool | None:
        """True where proved, False where refuted by a witness, None where neither."""
        if self.changed is not None:
            return False
        return True if self.same_share == 1.0 else None


def _size(low: Float64[np.ndarray, " m"], high: Float64[np.ndarray, " m"]) -> float:
    return float(np.maximum(abs(low), abs(high)).max())


def diff(
    first: Loaded,
    second: Loaded,
    region: Property,
    config: DiffConfig | None = None,
    *,
    listen: Listener = silent,
) -> Difference:
    """Bound how far two networks differ on the input boxes of a property (its outputs play no part).

    Sound for every float32 execution of either network. Raises MismatchError where the networks and the
    region do not fit each other, NetworkError where a network is too large to bound.
    """
    config, started = config or DiffConfig(), time.monotonic()
    _fitting(first, second, region)
    both = pair(lower(first.network), lower(second.network))
    boxes, deadline = _boxes(region), within(config.timeout)
    points, ours, theirs = _looked(both, (_session(first), _session(second)), boxes, (config, deadline))
    apart = ours.astype(np.float64) - theirs
    widest = int(abs(apart).max(axis=1).argmax())
    changed = np.flatnonzero(decided(ours, config.decision) != decided(theirs, config.decision))
    limits = (config.boxes or (MOST_BOXES if both.first.inputs <= FEW_INPUTS else len(boxes)), deadline)
    leaves = narrowed(both, bounded(both, boxes), float(abs(apart).max()), limits, listen)
    share, used = same_share(both, boxes, config.decision, limits, listen)
    return Difference(
        leaves.low.min(axis=0),
        leaves.high.max(axis=0),
        (leaves.separate_low.min(axis=0), leaves.separate_high.max(axis=0)),
        (apart.min(axis=0), apart.max(axis=0)),
        Seen(points[widest], ours[widest], theirs[widest]),
        share,
        Seen(points[changed[0]], ours[changed[0]], theirs[changed[0]]) if len(changed) else None,
        claim(operators=(type(node.op).__name__ for n in (first, second) for node in n.network.nodes)),
        leaves.bounded + used,
        time.monotonic() - started,
    )


def _fitting(first: Loaded, second: Loaded, region: Property) -> None:
    one, other = first.network, second.network
    for what, ours, theirs in (
        ("inputs", one.input_size, other.input_size),
        ("outputs", one.output_size, other.output_size),
    ):
        if ours != theirs:
            raise MismatchError(
                f"{one.name} has {ours} {what} and {other.name} has {theirs}; give two networks of one shape"
            )
    if region.inputs != one.input_size:
        raise MismatchError(
            f"{region.name} has {region.inputs} inputs, {one.name} has {one.input_size}; give a region of it"
        )


def _session(loaded: Loaded) -> Session:
    return open_session(loaded.original if loaded.original is not None else write_onnx(loaded.network))


def _boxes(region: Property) -> Region:
    hulls = [case.box.float32_hull() for case in region.cases]
    low, high = (np.array(ends, dtype=np.float64) for ends in zip(*hulls, strict=True))
    return Region(low, high)


def _looked(
    both: Pair, sessions: tuple[Session, Session], boxes: Region, how: tuple[DiffConfig, Deadline]
) -> tuple[Float32[np.ndarray, "k n"], Float32[np.ndarray, "k m"], Float32[np.ndarray, "k m"]]:
    """Samples, attacks and borders: points of the region, and both outputs there in ONNX Runtime."""
    config, deadline = how
    random = np.random.default_rng(config.seed)
    box = random.integers(len(boxes), size=config.samples)
    share = random.random((config.samples, both.first.inputs))
    x = _inside(boxes, box, boxes.low[box] + share * (boxes.high[box] - boxes.low[box]))
    found = [x, _attacked(both, boxes, config, deadline)]
    outputs = tuple(_run(session, np.concatenate(found)) for session in sessions)
    border, where = _borders(sessions[0], x, box, config)
    if len(border):
        found.append(_inside(boxes, where, border))
        outputs = tuple(
            np.concatenate([known, _run(session, found[-1])])
            for known, session in zip(outputs, sessions, strict=True)
        )
    return np.concatenate(found), outputs[0], outputs[1]


def _inside(boxes: Region, box: np.ndarray, x: Float64[np.ndarray, "k n"]) -> Float32[np.ndarray, "k n"]:
    """As float32 points, which rounding did not take out of their box: its ends are float32 numbers."""
    return np.clip(x.astype(np.float32), boxes.low[box], boxes.high[box]).astype(np.float32)


def _run(session: Session, x: Float32[np.ndarray, "k n"]) -> Float32[np.ndarray, "k m"]:
    return run(session, x.reshape(len(x), *session.input_shape)).reshape(len(x), -1)


def _attacked(
    both: Pair, boxes: Region, config: DiffConfig, deadline: Deadline
) -> Float32[np.ndarray, "k n"]:
    """Ascent on the size of every output's difference, in every box while there is time."""
    n = both.first.outputs
    signs = np.concatenate([np.eye(n), -np.eye(n)])
    aim = Goal(signs, np.zeros(2 * n), np.zeros(2 * n, dtype=bool), np.eye(2 * n, dtype=bool))
    how = AttackConfig(starts=max(1, 64 // (2 * n)), seed=config.seed)
    found = [np.zeros((0, both.first.inputs), dtype=np.float32)]
    for at in range(len(boxes)):
        try:
            best = attack(both.joint, aim, boxes.low[at], boxes.high[at], how, deadline.check)
        except OutOfTimeError:
            break
        found.append(_inside(boxes, np.full(len(best), at), best))
    return np.concatenate(found)


def _borders(
    session: Session, x: Float32[np.ndarray, "k n"], box: np.ndarray, config: DiffConfig
) -> tuple[Float64[np.ndarray, "j n"], np.ndarray]:
    """Both sides of the first network's border between decisions, on segments within a box.

    Two networks whose borders are not the same decide otherwise on one side of it.
    """
    order = np.argsort(box, kind="stable")
    left, right = x[order[:-1]].astype(np.float64), x[order[1:]].astype(np.float64)
    said = decided(_run(session, x[order]), config.decision)
    across = np.flatnonzero((said[:-1] != said[1:]) & (box[order[:-1]] == box[order[1:]]))[:64]
    left, right, before = left[across], right[across], said[:-1][across]
    for _ in range(BISECTIONS if len(across) else 0):
        middle = (left + right) / 2.0
        same = decided(_run(session, middle.astype(np.float32)), config.decision) == before
        left, right = np.where(same[:, None], middle, left), np.where(same[:, None], right, middle)
    return np.concatenate([left, right]), np.tile(box[order[:-1]][across], 2)
