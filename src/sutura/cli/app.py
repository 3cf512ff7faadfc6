"""`sutura`: the command line. Each command is a file of its own, imported when it runs."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import click

from sutura import __version__

COMMANDS = {
    "inspect": "List every node of a network, supported or not.",
    "verify": "Decide whether a network has its properties.",
    "repair": "Make a network provably have its properties.",
    "diff": "Bound how far two networks differ on a region.",
    "condense": "Show where neurons point, and merge those of one line.",
    "evaluate": "Measure what a repair changed.",
    "risk": "Say how far each input is from harm, with both bounds.",
    "compress": "Make a network smaller.",
    "shift": "Make weights signed powers of two.",
    "ship": "Run a recipe: the whole chain, with its evidence in one folder.",
    "campaign": "Decide many instances with many workers, each once.",
    "status": "Show a campaign's results while it runs.",
    "check": "Check a repaired network's certificate independently.",
    "qualify": "Measure how the runtime on this machine rounds.",
    "serve": "Serve a repaired network over HTTP, guarded.",
    "calibrate": "Make predicted probabilities mean what they say.",
    "supports": "Answer the VNN-LIB questions on what is supported.",
}
"""Command -> what it does; the command lives in the module of that name, or in one named below."""

ELSEWHERE = {"supports": "standard"}


STARTED = "sutura.started"
"""Under this name the context of a command holds the monotonic time at which it was asked for."""


class Commands(click.Group):
    """Imports a command only when it is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Note the time first: limits count what a command takes to import."""
        ctx.meta[STARTED] = time.monotonic()
        return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object of a module."""
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"sutura.cli.{ELSEWHERE.get(cmd_name, cmd_name)}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _say_name(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo("sutura")
        ctx.exit()


def _say_examples(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from sutura.cli.examples import examples_folder

        click.echo(examples_folder())
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
@click.option(
    "--name", is_flag=True, is_eager=True, expose_value=False, callback=_say_name, help="Show the name."
)
@click.option(
    "--examples-dir",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_examples,
    help="Show the folder of the examples that come with sutura.",
)
def main() -> None:
    """Repair neural networks correctly: gates where one can go wrong, and a certificate anyone can check.

    Exit codes: 0 holds or done, 1 violated or refused, 2 bad input, 3 unknown. The VNN-LIB form of verify
    answers in words, and its code is 0 whatever the answer.
    """
