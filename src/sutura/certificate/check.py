"""The independent checker: decides from bytes alone whether a repaired network is proved to keep its
properties.

Run it as `python -m sutura.certificate.check fixed.onnx prop1.vnnlib [prop2.vnnlib ...] fixed.cert.json`.
It needs Python and numpy, and nothing else of sutura. With `--exact-sample K` or `--exact` the exact checker
(the folder exact: Python alone, whole numbers only) then bounds K boxes again, or all. What `accepted`
means: for every float32 input in the box of every property, every IEEE 754 binary32 execution of the
exported network (any order of summation, fused or not, subnormal numbers kept or flushed in its arithmetic)
gives an output that the property allows.
What that rests on is in the certificate, and printed (see claim.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from sutura.certificate import exact, schema, tree
from sutura.certificate.cells import Duty, leaves
from sutura.certificate.claim import Claim, certified
from sutura.certificate.claim import claim as rests_on
from sutura.certificate.compile import compile_network
from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.gates import Gates, acts, needs_bound, read_gates
from sutura.certificate.layers import Program
from sutura.certificate.model import Exported, open_exported
from sutura.certificate.prove import Goals, boxes_of, goals_of, proved
from sutura.certificate.schema import Certificate, Counts
from sutura.certificate.vnnlib import Case, Property, read_property
from sutura.certificate.wire import Array

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What the checker found. `reason` is one line: what was accepted, or the first thing that fails.

    Counts are what was established before the verdict: leaves walked, those that needed a bound, those that
    gates settle, rows of the gate tables, properties; `seconds` is wall-clock time; `claim` is what is
    shown (None where refused); `tier` the strongest check that spoke: "fast" (float64, every leaf),
    "exact-sample" or "exact" (whole numbers).
    """

    accepted: bool
    reason: str
    leaves: int
    proved: int
    gated: int
    rows: int
    properties: int
    seconds: float
    claim: Claim | None = None
    tier: str = "fast"


@dataclass(slots=True)
class _Tally:
    leaves: int = 0
    proved: int = 0
    gated: int = 0
    outside: int = 0
    rows: int = 0
    claim: Claim | None = None


def check(
    network: bytes,
    properties: Sequence[bytes],
    certificate: bytes,
    *,
    progress: Progress | None = None,
    workers: int = 1,
) -> Report:
    """Checks a certificate against the exported ONNX bytes and the (inflated) VNN-LIB bytes; never raises
    for them.

    `progress` is called with (leaves settled, leaves in all) now and then; `workers` threads share the
    bounds, and change nothing but the time.
    """
    began = time.perf_counter()
    tally = _Tally()
    try:
        reason = _check(network, properties, certificate, tally, (progress, workers))
        accepted = True
    except CertificateError as error:
        reason, accepted = str(error), False
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        reason, accepted = f"the files are malformed ({type(error).__name__}: {brief(str(error))})", False
    reason = " ".join(reason.split())
    seconds = time.perf_counter() - began
    shown = tally.claim if accepted else None
    counted = (tally.leaves, tally.proved, tally.gated, tally.rows, len(properties))
    return Report(accepted, reason, *counted, seconds, shown)


def _check(
    network: bytes,
    properties: Sequence[bytes],
    certificate: bytes,
    tally: _Tally,
    how: tuple[Progress | None, int],
) -> str:
    claim = schema.loads(certificate)
    _bind(claim, network, properties)
    exported = open_exported(network)
    wanted = [_named(entry.name, data) for entry, data in zip(claim.properties, properties, strict=True)]
    tally.claim = _assumed(claim, exported)
    gates = read_gates(exported)
    tally.rows = gates.rows
    for entry, found in zip(claim.properties, wanted, strict=True):
        _fits(entry.name, found, exported, gates)
    cases = tuple(case for found in wanted for case in found.cases)
    nodes = tree.decode(claim.tree)
    proof = _Proof(exported, gates, cases, wanted[0].outputs)
    _settle(proof, leaves(nodes, exported.inputs, cases, gates.dispatch), (len(nodes) + 1) // 2, tally, how)
    counts = Counts(tally.leaves, tally.proved, tally.gated, tally.outside, tally.rows)
    if counts != claim.counts:
        raise CertificateError(f"the certificate counts {claim.counts}, but found {counts}")
    return f"{counts.leaves} leaves: {counts.proved} proved, {counts.gated} gated, {counts.outside} outside"


def _bind(claim: Certificate, network: bytes, properties: Sequence[bytes]) -> None:
    if hashlib.sha256(network).hexdigest() != claim.network:
        raise CertificateError(
            "the network file is not the one that the certificate speaks of (SHA-256 differs)"
        )
    if len(properties) != len(claim.properties):
        raise CertificateError(
            f"the certificate speaks of {len(claim.properties)} properties, but {len(properties)} are given"
        )
    for entry, data in zip(claim.properties, properties, strict=True):
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise CertificateError(
                f"property {entry.name}: the file given is not the one certified (SHA-256 differs)"
            )


def _assumed(claim: Certificate, exported: Exported) -> Claim:
    """What the proof shows, once it is checked; the certificate must say itself what that rests on."""
    wanted = rests_on(claim.profile, (node.op for node in exported.nodes))
    if claim.assumes != wanted.assumes:
        raise CertificateError(f"the certificate must name what it assumes: {', '.join(wanted.assumes)}")
    return wanted


def _named(name: str, data: bytes) -> Property:
    try:
        return read_property(data)
    except CertificateError as error:
        raise CertificateError(f"property {name}: {error}") from None


def _fits(name: str, found: Property, exported: Exported, gates: Gates) -> None:
    if found.inputs != exported.inputs:
        raise CertificateError(f"property {name} has {found.inputs} inputs, the network {exported.inputs}")
    if gates.output is not None and gates.output.constant.shape[1] != found.outputs:
        raise CertificateError(
            f"property {name} has {found.outputs} outputs, the network {gates.output.constant.shape[1]}"
        )


@final
class _Proof:
    """What is worked out once and asked again: rows that need bounds, goals by case, the compiled network."""

    def __init__(self, exported: Exported, gates: Gates, cases: Sequence[Case], outputs: int) -> None:
        self.exported, self.gates, self.cases, self.outputs = exported, gates, cases, outputs
        self._needs: dict[tuple[int, int], bool] = {}
        self._goals: dict[int, Goals] = {}
        self._program: Program | None = None

    def needs_bound(self, row: int, duty: Duty) -> bool:
        """See `gates.needs_bound`; a gate that does so must act in all of the box."""
        case = duty.case
        if (row, case) not in self._needs:
            self._needs[row, case] = needs_bound(self.gates, row, self.cases[case])
        if not self._needs[row, case] and not acts(self.gates, row, duty.lower, duty.upper):
            raise CertificateError(f"row {row}: its gate does not act in all of the box of a leaf")
        return self._needs[row, case]

    def goals(self, case: int) -> Goals:
        """What the network must be bounded for in a case."""
        if case not in self._goals:
            self._goals[case] = goals_of(self.cases[case], self.outputs)
        return self._goals[case]

    def program(self) -> Program:
        """The network part; compiled only if some leaf needs a bound."""
        if self._program is None:
            self._program = compile_network(self.exported, self.gates)
            size = self._program.sizes[self._program.output]
            if size != self.outputs:
                raise CertificateError(f"the properties have {self.outputs} outputs, the network {size}")
        return self._program


@dataclass(frozen=True, slots=True)
class _Batch:
    """Boxes of one case to be bounded, with the leaf that each belongs to."""

    case: int
    duties: tuple[tuple[int, int, Duty], ...]


def _settle(
    proof: _Proof,
    found: Iterator[tuple[Duty, ...]],
    total: int,
    tally: _Tally,
    how: tuple[Progress | None, int],
) -> None:
    """Settles every leaf, bounding boxes in batches of fixed size; fails at the first batch that has an
    open box.
    """
    progress, workers = how
    running: deque[tuple[Future[Array], _Batch, int]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for batch in _batches(proof, found, tally):
                program, goals = proof.program(), proof.goals(batch.case)
                running.append((pool.submit(_prove, program, goals, batch), batch, tally.leaves))
                if len(running) > 2 * max(1, workers):
                    _collect(running, progress, total)
            while running:
                _collect(running, progress, total)
        finally:
            pool.shutdown(cancel_futures=True)
    if progress is not None:
        progress(total, total)


def _collect(
    running: deque[tuple[Future[Array], _Batch, int]], progress: Progress | None, total: int
) -> None:
    future, batch, done = running.popleft()
    settled = future.result()
    for good, (leaf, row, duty) in zip(settled, batch.duties, strict=True):
        if not good:
            box = [[low, high] for low, high in zip(duty.lower, duty.upper, strict=True)]
            raise CertificateError(
                f"leaf {leaf}, row {row}: no bound shows it safe over the box {brief(box, 400)}"
            )
    if progress is not None:
        progress(done, total)


def _prove(program: Program, goals: Goals, batch: _Batch) -> Array:
    lower = [duty.lower for _, _, duty in batch.duties]
    upper = [duty.upper for _, _, duty in batch.duties]
    return proved(program, boxes_of(lower, upper, [row for _, row, _ in batch.duties]), goals)


def _batches(proof: _Proof, found: Iterator[tuple[Duty, ...]], tally: _Tally) -> Iterator[_Batch]:
    """Walks the leaves, counts them, and groups the boxes that need a bound by case."""
    waiting: dict[int, list[tuple[int, int, Duty]]] = {}
    limit = max(1, min(BATCH, MAX_NUMBERS // proof.exported.inputs))
    for leaf, duties in enumerate(found):
        bounded = [(duty, row) for duty in duties for row in duty.rows if proof.needs_bound(row, duty)]
        tally.leaves += 1
        tally.outside += not duties
        tally.proved += bool(bounded)
        tally.gated += bool(duties) and not bounded
        for duty, row in bounded:
            group = waiting.setdefault(duty.case, [])
            group.append((leaf, row, duty))
            if len(group) == limit:
                yield _Batch(duty.case, tuple(waiting.pop(duty.case)))
    for case, group in waiting.items():
        yield _Batch(case, tuple(group))


def exactly(report: Report, files: Sequence[bytes], sample: int | None, workers: int | None) -> Report:
    """The report once the exact checker has spoken too, on all boxes (`sample` None) or on so many."""
    began = time.perf_counter()

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done:,} of {total:,} boxes bounded exactly" + "\n" * (done == total))

    cores = workers or os.cpu_count() or 1
    accepted, reason = exact.check(files, sample=sample, workers=cores, progress=tell)
    seconds = report.seconds + time.perf_counter() - began
    tier = "exact" if sample is None else "exact-sample"
    shown = report.claim if accepted else None
    if shown is not None and sample is None:
        shown = certified(shown)
    return replace(report, accepted=accepted, reason=reason, claim=shown, tier=tier, seconds=seconds)


def _read(path: Path) -> bytes:
    """A file's bytes within the budget, inflated where its name ends in .gz."""
    if path.stat().st_size > MAX_FILE:
        raise CertificateError(f"{path} is larger than {MAX_FILE} bytes")
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    inflater = zlib.decompressobj(wbits=31)
    text = inflater.decompress(data, MAX_INFLATED)
    if not inflater.eof or inflater.unused_data:
        raise CertificateError(
            f"{path} is cut off, holds more than one file, or inflates beyond {MAX_INFLATED}"
        )
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 accepted, 1 refused, 2 files unreadable or wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m sutura.certificate.check", description=USAGE)
    parser.add_argument("network", type=Path, help="exported ONNX file")
    parser.add_argument("properties", type=Path, nargs="+", help="VNN-LIB 1.0 files (.vnnlib or .vnnlib.gz)")
    parser.add_argument("certificate", type=Path, help="certificate (JSON)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--workers", type=int, help="threads, or processes of the exact tiers (default all)")
    parser.add_argument("--exact", action="store_true", help="bound every box again in whole numbers")
    parser.add_argument(
        "--exact-sample", type=int, metavar="K", help="the same for K boxes, drawn by SHA-256"
    )
    given = parser.parse_args(arguments)
    try:
        network, certificate = _read(given.network), _read(given.certificate)
        properties = [_read(path) for path in given.properties]
    except (OSError, zlib.error, CertificateError) as error:
        sys.stderr.write(f"unreadable: {' '.join(str(error).split())}\n")
        return 2
    workers = min(max(given.workers or 1, 1), 64)
    report = check(network, properties, certificate, workers=workers)
    if report.accepted and (given.exact or given.exact_sample is not None):
        files = (network, *properties, certificate)
        report = exactly(report, files, None if given.exact else given.exact_sample, given.workers)
    if given.json:
        shown = {"assumptions": report.claim.assumptions} if report.claim else {}
        sys.stdout.write(json.dumps({**asdict(report), **shown}) + "\n")
    else:
        sys.stdout.write(f"{'accepted' if report.accepted else 'refused'}: {report.reason}\n")
        if report.claim:
            sys.stdout.write(f"{report.claim.level}: {report.claim.meaning}; assumed:\n")
            sys.stdout.writelines(f"- {text}\n" for text in report.claim.assumptions)
    return 0 if report.accepted else 1


USAGE = "Checks that a repaired network is proved to keep its properties, in every float32 execution."
BATCH = 512
MAX_NUMBERS = 1 << 20
MAX_FILE = 1 << 28
MAX_INFLATED = 1 << 25

if __name__ == "__main__":
    sys.exit(main())
