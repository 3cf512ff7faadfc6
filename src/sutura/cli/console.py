"""What people see: messages and progress on stderr, results on stdout, one line for every error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from sutura.errors import NetworkError, PropertyError, SuturaError
from sutura.outward import share_at_least
from sutura.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from sutura.training.train import Epoch

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit codes of every command."""

    HOLDS = 0
    VIOLATED = 1
    BAD_INPUT = 2
    UNKNOWN = 3
    INTERRUPTED = 130


def messages() -> Console:
    """The console that people read."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def guarded(command: Callable[P, Exit]) -> Callable[P, None]:
    """A command that ends with its exit code; whatever the input is to blame for is one line and code 2."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except SuturaError as error:
            code = _refuse(str(error))
        except OSError as error:
            code = _refuse(f"cannot read {error.filename or 'a file'}: {error.strerror or error}")
        except MemoryError:
            code = _refuse("out of memory; the input is too large for this machine")
        except KeyboardInterrupt:
            messages().print("interrupted; nothing was written")
            code = Exit.INTERRUPTED
        sys.exit(int(code))

    return run


def _refuse(text: str) -> Exit:
    messages().print(f"[bold red]error:[/] {plain(' '.join(text.split()))}")
    return Exit.BAD_INPUT


def plain(text: str) -> str:
    """Foreign text as it is: no markup, and nothing that would steer a terminal."""
    return escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def bar(*, quiet: bool, noun: str = "boxes") -> Generator[Listener]:
    """A listener that draws a progress line while the block runs, if it runs in a terminal.

    `noun` is what the search counts.
    """
    with _line(quiet=quiet) as draw:

        def listen(event: Progress) -> None:
            draw(event.stage, event.settled, figures(event, noun))

        yield silent if draw is _undrawn else listen


@contextmanager
def epochs(*, quiet: bool) -> Generator[Callable[[Epoch], None]]:
    """A listener to training, which draws a progress line as `bar` does."""
    with _line(quiet=quiet) as draw:

        def listen(event: Epoch) -> None:
            draw("training", event.done / event.epochs, f"epoch {event.done}, loss {event.loss:.4g}")

        yield listen


@contextmanager
def _line(*, quiet: bool) -> Generator[Callable[[str, float, str], None]]:
    """A function that draws what is done, the share of it and figures."""
    console = messages()
    if quiet or not console.is_terminal:
        yield _undrawn
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0, figures="")

        def draw(stage: str, share: float, figures: str) -> None:
            bars.update(task, description=stage, completed=share, figures=figures)

        yield draw


def _undrawn(stage: str, share: float, figures: str) -> None:
    """Draws nothing."""


def figures(event: Progress, noun: str) -> str:
    """What a progress line says of a moment: the share settled, boxes, the best bound and what happened."""
    said = f"{share_at_least(event.settled)} settled, {event.boxes:,} {noun}, {event.waiting:,} waiting"
    bound = [] if event.bound is None else [f"bound {event.bound:.3g}"]
    return ", ".join([said, *bound, *filter(None, [event.note])])


def sorted_out(files: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
    """The network and the properties among the files of a command, told apart by suffix.

    Raises NetworkError unless there is one network, PropertyError where there is no property.
    """
    properties = tuple(f for f in files if f.name.lower().endswith((".vnnlib", ".vnnlib.gz")))
    networks = [f for f in files if f not in properties]
    if len(networks) != 1:
        named = ", ".join(f.name for f in networks) or "none"
        raise NetworkError(
            f"give one network (.onnx, .nnet) and properties (.vnnlib, .vnnlib.gz); networks here: {named}"
        )
    if not properties:
        raise PropertyError(f"no property is given for {networks[0].name}; name at least one .vnnlib file")
    return networks[0], properties
