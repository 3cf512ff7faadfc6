"""Journals of commands: a killed run goes on when the same command is given again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura import __version__
from sutura.cli.console import messages, plain
from sutura.errors import JournalError, OutputError, SuturaError
from sutura.journal import Journal, Track, open_journal
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.property.spec import Property


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where to keep a journal (None: nowhere), and whether one of other work at that place gives way."""

    place: Path | None
    afresh: bool = False


@dataclass(slots=True)
class Kept:
    """An open journal, None where there is none; once `finished`, it is not needed any more."""

    journal: Journal | None
    finished: bool = False

    def track(self, name: str) -> Track | None:
        """A track of the journal; None where there is none."""
        return None if self.journal is None else self.journal.track(name)

    def sync(self) -> None:
        """Force the journal to the disk: what rests on it is about to be handed over."""
        if self.journal is not None:
            self.journal.sync()


def digest(loaded: Loaded, properties: Sequence[Property], options: Mapping[str, Any]) -> bytes:
    """What a journal is bound to: network, properties, options that change results, version of sutura."""
    parts = [json.dumps([__version__, options], sort_keys=True).encode(), loaded.original or b""]
    parts += [write_onnx(loaded.network), *(p.text for p in properties)]
    whole = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
    return whole.digest()


@contextmanager
def journaled(keeping: Keeping, work: bytes, *, quiet: bool) -> Generator[Kept]:
    """The journal for a piece of work while the block runs.

    It is removed where the block says `finished`, or refuses; it stays where the block is interrupted or
    its results cannot be written, and where the process dies.
    Raises JournalError, before any work, where the place cannot be used.
    """
    if keeping.place is None:
        yield Kept(None)
        return
    journal = open_journal(keeping.place, work, afresh=keeping.afresh)
    if journal.records and not quiet:
        messages().print(f"going on from {plain(str(keeping.place))} ({journal.records:,} records)")
    kept = Kept(journal)
    told = not quiet
    try:
        yield kept
        journal.sync()
    except (JournalError, OutputError):
        told = False  # make room and go on
        raise
    except SuturaError:
        kept.finished = True  # it would end the same way again
        raise
    finally:
        journal.close(remove=kept.finished)
        if told and not kept.finished and journal.records:
            messages().print(f"{plain(str(keeping.place))} keeps what was done; the same command goes on")
