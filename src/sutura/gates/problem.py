"""What every method of repair starts from: the network made ready, and the boxes of its properties."""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sutura.bounds.lower import lower
from sutura.bounds.program import Program, run
from sutura.errors import MismatchError
from sutura.gates.cells import FEW_INPUTS, Box32, Tree, box32, everything, labelled, partition
from sutura.journal import Track
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.progress import Listener
from sutura.property.spec import Case, Property
from sutura.verdict.deadline import Deadline, within
from sutura.verdict.goal import Goal, goal
from sutura.verdict.search import check_fit
from sutura.verdict.workers import workers


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A network with the properties that it must have.

    `program` is the network lowered for bounds, `original` the bytes of the file that stands for it, `boxes`
    are those of the cases, `layout` cuts the input space into cells labelled with the cases that hold there
    (in all of the cell, or, of many inputs, in its part that lies in their box). A search goes on from what
    `track` of a journal holds of it.
    """

    network: Network
    program: Program
    original: bytes
    properties: tuple[Property, ...]
    cases: tuple[tuple[Property, Case], ...]
    boxes: tuple[Box32, ...]
    layout: Tree[frozenset[int]]
    track: Track | None = None

    def places(self) -> list[Place]:
        """The cells of the layout in which some case holds, in preorder."""
        found: list[Place] = []
        for number, active, cell in labelled(self.layout, everything(self.network.input_size)):
            held = self.held(active)
            found.append(Place(number, active, cell.common(held), cell.within(held)))
        return found

    def held(self, active: frozenset[int]) -> Box32:
        """Where all of these cases hold."""
        return functools.reduce(Box32.common, [self.boxes[i] for i in sorted(active)])

    def cut_out(self) -> Problem:
        """The same with a layout whose cells are labelled with cases that hold in all of the cell."""
        if all(place.whole for place in self.places()):
            return self
        return replace(self, layout=partition(self.boxes, self.network.input_size))

    def aim(self, active: frozenset[int]) -> Goal:
        """What a proof must refute where all of these cases hold."""
        unsafe = [c for i in sorted(active) for c in self.cases[i][1].unsafe]
        return goal(unsafe, self.network.output_size)

    def of(self, network: Network) -> Problem:
        """The same properties asked of another network of the same sizes."""
        return replace(self, network=network, program=lower(network))


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A cell of the layout: its number among all, the cases that hold there, its box (the part of it where
    they hold), and whether that is the whole cell."""

    number: int
    active: frozenset[int]
    box: Box32
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What a repair may use: a pool of threads, how many, until when, and who is told of progress."""

    pool: Executor
    workers: int | None
    deadline: Deadline
    listen: Listener


def problem(loaded: Loaded, properties: Sequence[Property], track: Track | None = None) -> Problem:
    """Raises MismatchError where sizes do not fit or no property is given."""
    if not properties:
        raise MismatchError("no property is given; a repair needs at least one")
    network = loaded.network
    program = lower(network)
    for prop in properties:
        check_fit(program, prop)
    cases = tuple((prop, case) for prop in properties for case in prop.cases)
    boxes = tuple(box32(*case.box.float32_hull()) for _, case in cases)
    layout = partition(boxes, network.input_size, coarse=network.input_size > FEW_INPUTS)
    original = loaded.original if loaded.original is not None else write_onnx(network)
    return Problem(network, program, original, tuple(properties), cases, boxes, layout, track)


@contextmanager
def means(
    count: int | None, timeout: float | None, listen: Listener, track: Track | None = None
) -> Generator[Means]:
    """`count` threads (all cores for None) for `timeout` seconds (no limit for None)."""
    with workers(count, track) as pool:
        yield Means(pool, count, within(timeout), listen)


def typical(program: Program, box: Box32) -> Float64[np.ndarray, " m"]:
    """The output in the middle of a box."""
    return run(program, ((box.low + box.high) / 2.0)[None])[-1][0]
