"""The proof: the certificate's tree, the boxes of its leaves, and whether bounds refute what is unsafe."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from math import lcm, prod
from typing import Any, NamedTuple

from .bound import Layers, Value, bound, lowest
from .delivered import acts, settled_by_gate
from .gates import Gates, reached, read_gates
from .graph import read_graph, varint
from .rules import compile_network
from .ticks import ENDLESS, Ints, RefusedError, midpoint, next_above, ticks, want
from .vnnlib import Case, read_property

Progress = Callable[[int, int], None]
Goal = tuple[Ints, int, bool]  # an unsafe inequality is refuted where row . y > bound, or also = where True


class Task(NamedTuple):
    """A box of a leaf in which the outputs of a row must be safe in a case."""

    leaf: int
    case: int
    row: int
    lower: Ints
    upper: Ints


def goals_of(case: Case, outputs: int) -> list[list[Goal]]:
    """By conjunction, its inequalities with whole coefficients and a bound in ticks."""
    found: list[list[Goal]] = []
    for conjunction in case.unsafe:
        found.append([])
        for terms, limit, strict in conjunction:
            factor, factors = lcm(limit.denominator, *(c.denominator for _, c in terms)), dict(terms)
            row = [int(factors.get(index, 0) * factor) for index in range(outputs)]
            found[-1].append((row, int(limit * factor) << 149, strict))
    return found


def proved(net: tuple[Layers, int], goals: Sequence[Sequence[Goal]], task: Task, halvings: int) -> bool:
    """Whether no execution on the box is unsafe; an open box is cut in two, `halvings` times deep."""
    (layers, output), (_, _, row, lower, upper) = net, task
    values = bound(layers, row, lower, upper)
    if values is None:
        return False
    for conjunction in goals:
        weights = [refuted(values, layers, output, goal) for goal in conjunction]
        if all(weights):
            sides = zip(weights[0], lower, upper, strict=True)
            cuttable = [weight if high > low else -1 for weight, low, high in sides]
            dim = cuttable.index(max(cuttable))
            if halvings == 0 or lower[dim] == upper[dim]:
                return False
            cut = midpoint(lower[dim], upper[dim])
            left = task._replace(upper=[*upper[:dim], cut, *upper[dim + 1 :]])
            right = task._replace(lower=[*lower[:dim], next_above(cut), *lower[dim + 1 :]])
            return proved(net, goals, left, halvings - 1) and proved(net, goals, right, halvings - 1)
    return True


def refuted(values: Sequence[Value], layers: Layers, output: int, goal: Goal) -> list[int]:
    """Nothing where the inequality never holds; else what each input weighs in it."""
    row, limit, tie = goal
    ends = zip(row, values[output].lower, values[output].upper, strict=True)
    interval = sum(c * (low if c > 0 else high) for c, low, high in ends)
    low, effect = lowest(values, layers, output, row)
    return [] if max(low, interval << 64) >= (limit << 64) + (not tie) else effect


def leaves(tree: bytes, inputs: int, cases: Sequence[Case], gates: Gates) -> Iterator[list[Task]]:
    """By leaf of the proof tree, the boxes and rows that it must make safe."""
    stack = [([-ENDLESS] * inputs, [ENDLESS] * inputs, [*range(len(cases))])]
    at = leaf = 0
    while stack:
        start = at
        code, at = varint(tree, at)
        want(tree[at - 1] or at == start + 1, "the proof tree has a number in a longer form")
        lower, upper, live = stack.pop()
        if code == 0:
            meets = ((k, map(max, lower, cases[k].lower), map(min, upper, cases[k].upper)) for k in live)
            inside = ((k, [*low], [*high]) for k, low, high in meets)
            yield [Task(leaf, k, row, *box) for k, *box in inside for row in reached(gates.tree, *box)]
            leaf += 1
            continue
        dim = code - 1 >> 1
        sized = dim < inputs and len(stack) * inputs < 1 << 24
        want(sized, "the proof tree splits what is no input, or too deep")
        low, high = lower[dim], upper[dim]
        if code % 2:
            want(max(-low, high) < ENDLESS, "the proof tree halves a side that has no end")
            cut = midpoint(low, high)
        else:
            cut, at = ticks(int.from_bytes(tree[at : at + 4], "little")), at + 4
        want(low <= cut < high, f"the proof tree splits input {dim} outside of its cell")
        above = next_above(cut)
        right = [k for k in live if cases[k].upper[dim] >= above]
        left = [k for k in live if cases[k].lower[dim] <= cut]
        stack.append(([*lower[:dim], above, *lower[dim + 1 :]], upper, right))
        stack.append((lower, [*upper[:dim], cut, *upper[dim + 1 :]], left))
    want(at == len(tree), "the proof tree is complete, but more bytes follow")


def canonical(document: Any) -> bytes:
    """The one way to write a JSON document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def digest(part: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(part).hexdigest()


def read_certificate(data: bytes, network: bytes, properties: Sequence[bytes]) -> dict[str, Any]:
    """The certificate: canonical JSON, bound to the bytes of these files."""
    claim = json.loads(data.decode("ascii"), parse_float=str, parse_constant=str)
    want(set(claim) == KEYS and canonical(claim) == data, "the certificate is not in canonical form")
    names = [entry["name"] for entry in claim["properties"]]
    bound = [{"name": name, "sha256": digest(part)} for name, part in zip(names, properties, strict=True)]
    known = {**claim, **KIND, "network": {"sha256": digest(network)}, "properties": bound}
    del known["digest"]
    known["digest"] = digest(canonical(known))
    for key, value in known.items():
        want(canonical(claim[key]) == canonical(value), f"the certificate's {key} is not that of these files")
    plain = all(type(t) is str and 0 < len(t) < 256 and t.isprintable() for t in (claim["tool"], *names))
    origin = re.fullmatch(rb'{"sha256":"[0-9a-f]{64}"}', canonical(claim["original"]))
    want(plain and origin and bound, "the certificate has a name or a digest that is malformed")
    return claim


class Opened(NamedTuple):
    """What is still to be bounded: the tasks, the goals by case, and the network (where there are tasks)."""

    net: tuple[Layers, int]
    goals: Sequence[list[list[Goal]]]
    tasks: Sequence[Task]
    account: str


@lru_cache(1)
def open_proof(files: tuple[bytes, ...]) -> Opened:
    """Checks all but the bounds of (network, properties..., certificate)."""
    network, *properties, certificate = files
    claim = read_certificate(certificate, network, properties)
    graph, read = read_graph(network), [read_property(data) for data in properties]
    gates, (inputs, outputs, _) = read_gates(graph), read[0]
    fits = {found[:2] for found in read} == {(prod(graph.sample), outputs)}
    want(fits, "a property does not fit the network")
    want(all(len(values) == outputs for values in gates.constant), "a property does not fit the output gate")
    curves = [word for word, ops in CURVES.items() if ops & {node.op for node in graph.nodes}]
    want(claim["assumes"] == ASSUMES + curves, "the certificate does not name what it assumes")
    cases = [case for found in read for case in found[2]]
    counts = {"gated": 0, "leaves": 0, "outside": 0, "proved": 0, "rows": gates.rows}
    tasks, settled = list[Task](), dict[tuple[int, int], bool]()
    for found in leaves(base64.b64decode(claim["tree"], validate=True), inputs, cases, gates):
        for row, case in {(task.row, task.case) for task in found} - set(settled):
            settled[row, case] = settled_by_gate(gates, row, cases[case].unsafe)
        for task in found:
            acting = not settled[task.row, task.case] or acts(gates, task.row, task.lower, task.upper)
            want(acting, f"row {task.row}: its gate does not act in all of the box of leaf {task.leaf}")
        bounded = [task for task in found if not settled[task.row, task.case]]
        tasks += bounded
        counts["leaves"] += 1
        counts["proved" if bounded else "gated" if found else "outside"] += 1
    want(str(claim["counts"]) == str(counts), f"the certificate counts {claim['counts']}, not {counts}")
    account = ", ".join(f"{number} {key}" for key, number in counts.items())
    net = compile_network(graph, gates) if tasks else ([], 0)
    return Opened(net, [goals_of(case, outputs) for case in cases], tasks, account)


def work(files: tuple[bytes, ...], tasks: Sequence[Task]) -> Task | None:
    """The first of some tasks that is not proved."""
    net, goals, *_ = open_proof(files)
    return next((task for task in tasks if not proved(net, goals[task.case], task, HALVINGS)), None)


def settle(files: tuple[bytes, ...], sample: int | None, workers: int, progress: Progress) -> str:
    """Bounds the tasks, or a sample drawn by the certificate's SHA-256; the account in one line."""
    tasks, account = open_proof(files)[-2:]
    seed = DRAW + hashlib.sha256(files[-1]).digest()
    drawn = [digest(seed + b"%d" % at) for at in range(len(tasks))]
    order = sorted(range(len(tasks)), key=drawn.__getitem__)[: len(tasks) if sample is None else sample]
    chunks = [[tasks[at] for at in order[first : first + CHUNK]] for first in range(0, len(order), CHUNK)]
    done = 0
    with ProcessPoolExecutor(workers) as pool:
        each = map if workers == 1 else pool.map
        for chunk, bad in zip(chunks, each(partial(work, files), chunks), strict=True):
            if bad is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                want(False, f"leaf {bad.leaf}, row {bad.row}: no bound shows it safe over its box")
            done += len(chunk)
            progress(done, len(order))
    return f"{account}; {len(order)} of {len(tasks)} boxes bounded exactly"


def check(
    files: Sequence[bytes],
    *,
    sample: int | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> tuple[bool, str]:
    """Whether (network, properties..., certificate) are accepted, and why in one line; never raises for them.

    `sample`: bounds so many of the boxes that need a bound (None: all); everything else is always checked.
    """
    try:
        return True, settle(tuple(files), sample, workers, progress)
    except RefusedError as error:
        return False, str(error)
    except BrokenProcessPool:
        return False, "a process of the checker died, so nothing is claimed"
    except MALFORMED as error:
        return False, f"the files are malformed ({type(error).__name__}: {str(error)[:100]})"


HALVINGS, CHUNK, DRAW = 6, 8, b"sutura exact sample\0"
KIND = {"format": "sutura-certificate", "version": 2, "profile": "float32-any-order"}
CURVES = {"curves-within-4e-7": {"Sigmoid", "Tanh"}, "exp-within-2^-21": {"Exp", "Softmax"}}
ASSUMES = ["file-as-hashed", "float32-inputs", "exact-comparisons", "binary32-nearest"]
KEYS = {*KIND, "assumes", "counts", "digest", "network", "original", "properties", "tool", "tree"}
MALFORMED = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
