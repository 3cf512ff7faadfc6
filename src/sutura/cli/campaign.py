"""`sutura campaign`: many instances, decided once each by any number of workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sutura.campaign.campaign import CampaignConfig, campaign
from sutura.campaign.executor import Executor
from sutura.campaign.instances import read_instances
from sutura.campaign.pool import Pool
from sutura.campaign.store import reading
from sutura.campaign.survey import survey
from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json
from sutura.cli.status import show
from sutura.errors import CampaignError
from sutura.progress import Progress
from sutura.report.document import document
from sutura.verdict.workers import cores

CODES = {"violated": Exit.VIOLATED, "unknown": Exit.UNKNOWN, "error": Exit.UNKNOWN, "open": Exit.UNKNOWN}
"""Verdict -> exit code of a campaign that has it, the first that applies; else 0."""


@click.command("campaign")
@click.argument("instances", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Results (SQLite); where it exists, what it holds is not computed again.",
)
@options.timeout
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes, one thread each; all cores by default."
)
@options.cluster
@options.seed
@options.external_data
@options.as_json
@guarded
def command(
    instances: Path,
    out: Path,
    timeout: float | None,
    workers: int | None,
    cluster: str | None,
    seed: int,
    external_data: bool,
    as_json: bool,
) -> Exit:
    """Decide many instances: sutura campaign instances.csv -o results.sqlite

    INSTANCES is a list as in VNN-COMP (lines NETWORK,PROPERTY,SECONDS; names relative to it, .gz allowed), or
    a folder: by its instances.csv, or else every network with every property. --timeout is for each instance;
    the smaller of it and the list's own counts.

    Interrupted or killed, the same command goes on; sutura status shows results meanwhile. Exit code 0 where
    all are proved, 1 where one is violated, 3 otherwise (also where an instance's files cannot be used).
    """
    asked = read_instances(instances)
    config = CampaignConfig(timeout, seed, external_data)
    try:
        with executor(workers, cluster) as carrying, bar(quiet=as_json, noun="instances") as draw:

            def listen(lines: int, said: Mapping[str, int]) -> None:
                done = sum(said.values())
                note = ", ".join(f"{count:,} {word}" for word, count in sorted(said.items()))
                draw(Progress("campaign", done, lines - done, done / lines, note=note))

            campaign(asked, carrying, out, config, listen=listen)
    except KeyboardInterrupt:
        messages().print(f"interrupted; what is done is in {plain(str(out))}, the same command goes on")
        return Exit.INTERRUPTED
    with reading(out) as found:
        body = survey(found)
    if as_json:
        print_json(document("campaign", body))
    else:
        show(body)
    return _code(body)


def executor(workers: int | None, cluster: str | None) -> Executor:
    """Processes of this machine, or a cluster where one is named."""
    if cluster is None:
        return Pool(workers or cores())
    if workers is not None:
        raise CampaignError("--workers does not go with --cluster, which has its own; leave one of them out")
    from sutura.campaign.cluster import Cluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said here, in one line
    return Cluster(cluster)


def _code(body: dict[str, Any]) -> Exit:
    said = {result["verdict"] for result in body["results"]}
    return next((code for word, code in CODES.items() if word in said), Exit.HOLDS)
