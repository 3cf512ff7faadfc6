"""Options that mean the same in every command."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import click

network = click.option(
    "--network", metavar="NAME=FILE", multiple=True, help="The network that a VNN-LIB query declares."
)
assignments = click.option(
    "--serialise-assignments",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the assignment as TensorProto files; with --network.",
)
timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Wall seconds; none by default."
)
workers = click.option("--workers", type=click.IntRange(min=1), help="Threads; all cores by default.")
seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random starts."
)
external_data = click.option(
    "--external-data",
    is_flag=True,
    help="Take in weights kept in files beside the network; else such a network is refused.",
)
journal = click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep what is done here; the same command goes on from it.",
)
cluster = click.option(
    "--cluster", metavar="ADDRESS", help="A Dask scheduler instead, such as tcp://host:8786."
)
sarif = click.option(
    "--sarif",
    "sarif_to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the verdicts as SARIF 2.1.0, for code review.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
decision = click.option(
    "--decision",
    type=click.Choice(["argmax", "argmin"]),
    default="argmax",
    show_default=True,
    help="How a decision is read off the scores, for agreement and for pictures.",
)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that looks most like the one given."""
    names = list(known)
    return get_close_matches(word, names, n=1, cutoff=0.0)[0] if names else word
