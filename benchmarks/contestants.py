"""What the verification benchmarks run: sutura in this process, and peers as commands; each gives an Answer.

CPU seconds are those of all threads and child processes, from reading the files to the verdict. Sutura's
start-up is apart, maraboupy's too (its command says its own CPU seconds); that of other commands counts.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import sutura
from sutura.verdict import deadline

GRACE = 5.0
"""Wall seconds beyond its limit after which a peer is killed."""

MARABOU = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from maraboupy import Marabou
options = Marabou.createOptions(verbosity=0, timeoutInSeconds=max(1, round(float(sys.argv[3]))))
started = time.process_time()
network = Marabou.read_onnx(sys.argv[1])
verdict = network.solve(propertyFilename=sys.argv[2], options=options, verbose=False)[0]
print()
print(verdict)
print("cpu-seconds", time.process_time() - started)
"""

CPU_SAID = "cpu-seconds"
"""Begins the line in which a command says its own CPU seconds, start-up apart."""

DECIDED = ("sat", "unsat")
WORDS = {"Proved": "unsat", "Violated": "sat", "Unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict (sat, unsat, unknown, refused, error, killed), why it is undecided, CPU and wall seconds.

    Sutura alone fills in the CPU seconds spent on reading the files, boxes bounded, and peak memory in MB.
    """

    verdict: str
    reason: str
    cpu_seconds: float
    wall_seconds: float
    load_seconds: float | None = None
    boxes: int | None = None
    peak_mb: float | None = None


Tool = Callable[[Path, Path, float], Answer]
"""Network, property and limit in wall seconds to an answer."""


def cpu() -> float:
    """CPU seconds of this process, all threads, and of the child processes that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def peak_mb(reset: bool = False) -> float | None:
    """Most memory that this process held since the last reset, in MB; None where Linux does not say."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def sutura_tool(workers: int, cpu_limit: bool = False) -> Tool:
    """Sutura in this process, with that many threads; with `cpu_limit` its limit counts CPU seconds."""
    clock = time.process_time if cpu_limit else time.monotonic

    def ask(network: Path, wanted: Path, limit: float) -> Answer:
        peak_mb(reset=True)
        started, wall, read, boxes = cpu(), time.perf_counter(), None, None
        try:
            loaded, asked = sutura.load(network), sutura.read_property(wanted)
            read = cpu() - started
            with patch.object(deadline, "time", SimpleNamespace(monotonic=clock)):
                outcome = sutura.verify(loaded, asked, sutura.VerifyConfig(timeout=limit, workers=workers))
            verdict, boxes = WORDS[type(outcome.verdict).__name__], outcome.account.boxes
            reason = getattr(outcome.verdict, "reason", "")
        except sutura.SuturaError as error:
            verdict, reason = "refused", str(error)
        except Exception as error:  # noqa: BLE001 -- a crash is a row of its own, not the end of the run
            verdict, reason = "error", f"{type(error).__name__}: {error}"
        return Answer(verdict, reason, cpu() - started, time.perf_counter() - wall, read, boxes, peak_mb())

    return ask


def peer_tool(command: Sequence[str]) -> Tool:
    """A command that takes NET PROP SECONDS and prints a verdict first on a line."""

    def ask(network: Path, wanted: Path, limit: float) -> Answer:
        started, wall = cpu(), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            asked = plain(wanted, Path(folder))
            line = [*command, str(network), str(asked), f"{limit:g}"]
            verdict, reason, own = _run(line, limit + GRACE)
        spent = cpu() - started if own is None else own
        return Answer(verdict, reason, spent, time.perf_counter() - wall)

    return ask


def plain(asked: Path, folder: Path) -> Path:
    """The property file, or an unpacked copy of it in the folder."""
    if asked.suffix != ".gz":
        return asked
    copy = folder / asked.stem
    copy.write_bytes(gzip.decompress(asked.read_bytes()))
    return copy


def _run(command: Sequence[str], limit: float) -> tuple[str, str, float | None]:
    """Verdict, reason and the CPU seconds it gave; after the limit the whole process group is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "killed", f"killed after {limit:g} s", None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    lines = [words for line in out.splitlines() if (words := line.split())]
    own = next((float(words[1]) for words in lines if words[0] == CPU_SAID), None)
    for word in (words[0].lower() for words in lines):
        if word in DECIDED:
            return word, "", own
        if word in ("unknown", "timeout"):
            return "unknown", word, own
    last = (err.strip() or out.strip() or "nothing printed").splitlines()[-1]
    return "error", f"exit code {process.returncode}: {last}", own


def tools(arguments: argparse.Namespace) -> dict[str, Tool]:
    """Sutura, and the peers that the command line names."""
    found = {"sutura": sutura_tool(arguments.workers, arguments.cpu_limit)}
    if arguments.marabou:
        found["maraboupy"] = peer_tool((arguments.marabou, "-c", MARABOU))
    for name, executable in (peer.split("=", 1) for peer in arguments.peer):
        found[name] = peer_tool((executable,))
    return found


def options(description: str) -> argparse.ArgumentParser:
    """The options that the verification benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timeout", type=float, help="wall seconds an instance, if fewer than on record")
    parser.add_argument(
        "--cpu-limit", action="store_true", help="sutura's limit counts its CPU seconds: for a busy machine"
    )
    parser.add_argument("--workers", type=int, default=1, help="threads of sutura (default 1)")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument(
        "--marabou", metavar="PYTHON", type=_executable, help="an interpreter that has maraboupy"
    )
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=EXECUTABLE")
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    return parser


def _peer(text: str) -> str:
    name, found, executable = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=EXECUTABLE")
    return f"{name}={_executable(executable)}"


def _executable(text: str) -> str:
    if shutil.which(text) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no executable file")
    return text
