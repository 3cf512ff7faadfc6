"""`sutura ship`: a recipe in, the folder that ships out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.report.card import card
from sutura.report.document import document
from sutura.report.page import VERDICTS, page
from sutura.ship.artefact import artefact, write
from sutura.ship.catalogue import ROLES, Catalogue, Kind, Option
from sutura.ship.chain import ship
from sutura.ship.evidence import evidence
from sutura.ship.recipe import read_recipe
from sutura.ship.weights import torch_weights


@click.command("ship")
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; RECIPE.ship if left out."
)
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where stages are kept; OUT/.stages if left out.",
)
@click.option(
    "--run-code", is_flag=True, help="Run the Python file that a recipe's [module] names; else it is refused."
)
@options.as_json
@guarded
def command(recipe: Path, out: Path | None, store: Path | None, run_code: bool, as_json: bool) -> Exit:
    """Take a network through a recipe's stages: sutura ship recipe.toml -o shipped/

    Stages are those of the commands, with the same options. Each is kept by what went into it: run again,
    also after an interruption, only what changed is computed. A property proved of the original is not asked
    again where a diff stage proves that the decision it rests on cannot have changed.

    Exit code 0 where every property of the recipe is proved of the network that ships, 1 where one is
    violated, 3 otherwise.
    """
    folder = out or recipe.with_suffix(".ship")
    stages = catalogue()
    read = read_recipe(recipe, stages, run_code=run_code)
    console = messages()

    def listen(at: int, of: int, run: str) -> None:
        if not as_json:
            console.print(f"stage {at} of {of}: {run}")

    kept = store or folder / ".stages"
    shipped = ship(read, stages, kept, listen=listen)
    report = document("ship", evidence(shipped))
    pages = {"report.html": page(report), "README.md": card(report)}
    write(folder, artefact(shipped, report, pages, torch_weights(shipped.network, kept)))
    if as_json:
        print_json(report)
    else:
        _show(report, [d.result.reused for d in shipped.stages], folder)
    said = {known["verdict"] for known in report["properties"]}
    if "violated" in said:
        return Exit.VIOLATED
    return Exit.HOLDS if said <= {"certified", "proved"} else Exit.UNKNOWN


def catalogue() -> Catalogue:
    """The stages that are installed, with the options of their commands."""
    from sutura.cli.app import COMMANDS

    names = [name for name in ROLES if name in COMMANDS]
    return {name: _options(import_module(f"sutura.cli.{name}").command) for name in names}


def _options(command: click.Command) -> Mapping[str, Option]:
    found = [p for p in command.params if isinstance(p, click.Option)]
    return {_long(p).removeprefix("--"): _option(p) for p in found}


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)


def _option(option: click.Option) -> Option:
    kind: Kind = "value"
    if option.is_flag:
        kind = "flag"
    elif isinstance(option.type, click.Path):
        kind = "path"
    default: Any = option.to_info_dict()["default"]
    plain_default = default if isinstance(default, bool | int | float | str) else None
    return Option(_long(option), kind, plain_default if kind != "flag" else None, option.multiple)


def _show(report: dict[str, Any], reused: list[bool], folder: Path) -> None:
    """Stages, verdicts and where the evidence lies."""
    table = Table("stage", "bytes after it", "this run")
    sizes = iter(report["sizes"][1:])
    changed = {at for at, stage in enumerate(report["stages"]) if ROLES[stage["run"]].changes}
    for at, stage in enumerate(report["stages"]):
        size = next(sizes, None) if at in changed else None
        table.add_row(
            stage["run"],
            f"{size['bytes']:,}" if size else "",
            "kept from before" if reused[at] else "computed",
        )
    console = messages()
    console.print(table)
    for known in report["properties"]:
        colour = {"good": "green", "bad": "red", "open": "yellow"}[VERDICTS[known["verdict"]][0]]
        level = f" ({known['level']})" if known["level"] else ""
        console.print(f"{plain(known['property'])}: [{colour}]{known['verdict']}[/]{level}")
    console.print(f"evidence: {plain(str(folder / 'report.html'))}")
