"""`sutura verify`: does the network have its properties?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.bounds.profile import EXECUTIONS
from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json, sorted_out
from sutura.cli.resuming import Keeping, digest, journaled
from sutura.errors import CampaignError, NetworkError, PropertyError
from sutura.network.read import load, network_bytes
from sutura.outward import share_at_least
from sutura.property.read import read_property
from sutura.report.document import document, outcome
from sutura.report.sarif import sarif
from sutura.verdict.qualify import read_profile
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify
from sutura.writing import write_all

CODES = {"proved": Exit.HOLDS, "holds-real": Exit.HOLDS, "violated": Exit.VIOLATED, "unknown": Exit.UNKNOWN}


@click.command("verify")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.network
@options.assignments
@options.timeout
@options.workers
@options.seed
@click.option(
    "--profile", metavar="NAME|FILE", help=f"Execution to prove: {', '.join(EXECUTIONS)}, or from qualify."
)
@click.option(
    "--split",
    type=click.IntRange(min=2),
    help="Cut hard properties into so many parts, for --workers processes or a --cluster.",
)
@options.cluster
@options.journal
@options.external_data
@options.sarif
@options.as_json
@guarded
def command(
    files: tuple[Path, ...],
    network: tuple[str, ...],
    serialise_assignments: Path | None,
    timeout: float | None,
    workers: int | None,
    seed: int,
    profile: str | None,
    split: int | None,
    cluster: str | None,
    journal: Path | None,
    external_data: bool,
    sarif_to: Path | None,
    as_json: bool,
) -> Exit:
    """Decide whether a network has each of its properties: sutura verify NET.onnx PROP.vnnlib...

    Exit code 0 where all are proved, 1 where one is violated, 3 otherwise. --timeout is for each property.
    With --journal a killed or timed-out run goes on when it is given the same files again; the journal goes
    away once nothing is unknown. With --split a property of few inputs is spread over processes or machines.

    With --network it is the command of the VNN-LIB standard: sutura verify QUERY.vnnlib --network N=NET.onnx
    prints sat and an assignment, unsat, unknown or timed-out, and its exit code is 0.
    """
    if network or serialise_assignments:
        given = {"--journal": journal, "--split": split, "--cluster": cluster, "--sarif": sarif_to}
        if beside := [name for name, value in given.items() if value is not None]:
            raise PropertyError(f"{beside[0]} does not go with --network; leave one of them out")
        return _standard(files, network, serialise_assignments, (timeout, workers, seed, as_json))
    execution, runtime = _profile(profile)
    config = VerifyConfig(timeout=timeout, workers=workers, seed=seed, profile=execution, runtime=runtime)
    named, places = sorted_out(files)
    if split is None and cluster is None:
        results = _verified(named, places, config, Keeping(journal), (external_data, as_json))
    elif split is None or journal is not None:
        raise CampaignError("--cluster takes --split N beside it, and neither goes with --journal")
    else:
        results = _split(named, places, config, (split, cluster), (external_data, as_json))
    if sarif_to is not None:
        located = (
            {**r, "network": str(named), "property": str(p)} for r, p in zip(results, places, strict=True)
        )
        write_all({sarif_to: (json.dumps(sarif(located), indent=2) + "\n").encode()})
    return _told(named, results, as_json=as_json)


def _profile(given: str | None) -> tuple[str, str]:
    """The name of the execution to prove, and the runtime that it was measured on, if it was."""
    if given is None or given in EXECUTIONS:
        return given or VerifyConfig().profile, ""
    if not Path(given).is_file():
        raise NetworkError(f"--profile {given} is no file and none of {', '.join(EXECUTIONS)}")
    found = read_profile(Path(given))
    return found.execution, found.runtime


def _standard(
    files: tuple[Path, ...],
    networks: tuple[str, ...],
    assignments: Path | None,
    how: tuple[float | None, int | None, int, bool],
) -> Exit:
    from sutura.cli import standard

    timeout, workers, seed, as_json = how
    if as_json:
        raise PropertyError("--json does not go with --network: what is printed there is fixed by VNN-LIB")
    if len(files) != 1:
        named = ", ".join(file.name for file in files)
        raise PropertyError(f"with --network give one query and nothing else, not {named}")
    started = float(click.get_current_context().meta.get("sutura.started", time.monotonic()))
    request = standard.Request(files[0], networks, timeout, assignments, started)
    return standard.answer(request, VerifyConfig(workers=workers, seed=seed))


def _verified(
    network: Path, places: Sequence[Path], config: VerifyConfig, keeping: Keeping, how: tuple[bool, bool]
) -> list[dict[str, Any]]:
    external_data, as_json = how
    properties = [read_property(place) for place in places]
    loaded = load(network, external_data=external_data)
    results: list[dict[str, Any]] = []
    with journaled(
        keeping, digest(loaded, properties, {"seed": config.seed, "profile": config.profile}), quiet=as_json
    ) as kept:
        for number, (place, prop) in enumerate(zip(places, properties, strict=True)):
            track = None if kept.journal is None else kept.journal.track(f"{number} {place.name}")
            with bar(quiet=as_json) as listen:
                found = verify(loaded, prop, config, listen=listen, track=track)
            results.append(outcome(place.name, found))
        kept.finished = all(r["verdict"] != "unknown" for r in results)
    return results


def _split(
    network: Path,
    places: Sequence[Path],
    config: VerifyConfig,
    spread: tuple[int, str | None],
    how: tuple[bool, bool],
) -> list[dict[str, Any]]:
    """Each property in parts, on processes of its own or on a cluster."""
    from sutura.campaign.split import verify_split
    from sutura.cli.campaign import executor

    (parts, cluster), (external_data, as_json) = spread, how
    properties = [read_property(place) for place in places]
    file = (network_bytes(network, external_data=external_data), network.name)
    results: list[dict[str, Any]] = []
    for place, prop in zip(places, properties, strict=True):
        with executor(config.workers, cluster) as carrying, bar(quiet=as_json) as listen:
            found = verify_split(file, prop, carrying, config, parts=parts, listen=listen)
        results.append(outcome(place.name, found))
    return results


def _told(network: Path, results: list[dict[str, Any]], *, as_json: bool) -> Exit:
    if as_json:
        print_json(document("verify", {"network": network.name, "properties": results}))
    else:
        show(results)
    said = {str(r["verdict"]) for r in results}
    return next(CODES[word] for word in ("violated", "unknown", "holds-real", "proved") if word in said)


def show(results: list[dict[str, Any]]) -> None:
    """Verdicts as a table; below it witnesses, reasons, and what was claimed."""
    colours = {"proved": "green", "holds-real": "cyan", "violated": "red", "unknown": "yellow"}
    table = Table("property", "verdict", "boxes", "share proved", "seconds")
    for r in results:
        word = str(r["verdict"])
        share = share_at_least(r["proved_share"])
        table.add_row(
            plain(r["property"]),
            f"[{colours[word]}]{word}[/]",
            f"{r['boxes']:,}",
            share,
            f"{r['seconds']:.2f}",
        )
    console = messages()
    console.print(table)
    for r in results:
        if "witness" in r:
            console.print(f"{plain(r['property'])}: input  {_numbers(r['witness']['input'])}")
            console.print(
                f"{' ' * len(r['property'])}  output {_numbers(r['witness']['output'])} (ONNX Runtime)"
            )
        if "reason" in r:
            bound = "" if r["bound"] is None else f"; best bound {r['bound']:.3g} (above 0 is a proof)"
            console.print(f"{plain(r['property'])}: {plain(r['reason'])}{bound}")
    _show_claims(results)


def _show_claims(results: list[dict[str, Any]]) -> None:
    """What each level that was reached means, and assumes, once for all properties that reached it."""
    reached: dict[tuple[str, ...], list[str]] = {}
    for r in results:
        if "level" in r:
            claim = (r["level"], r["meaning"], *r["assumptions"])
            reached.setdefault(claim, []).append(plain(r["property"]))
    for (level, meaning, *assumptions), names in reached.items():
        whose = names[0] if len(names) == 1 else f"{len(names)} of {len(results)} properties"
        messages().print(f"{whose}: {level}: {meaning}; assumed:")
        messages().print("".join(f"- {text}\n" for text in assumptions), end="")


def _numbers(values: list[float]) -> str:
    shown = ", ".join(f"{v:.9g}" for v in values[:16])
    return shown if len(values) <= 16 else f"{shown}, ... ({len(values)} numbers; --json has all)"
