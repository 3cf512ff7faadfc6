"""Results of stages, kept under a digest of everything that went into them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura import __version__
from sutura.errors import OutputError, RecipeError

DONE = "stage.json"
"""Written last: a folder without it is nobody's result."""


@dataclass(frozen=True, slots=True)
class Result:
    """A stage that ran: its folder, exit code and JSON document."""

    folder: Path
    code: int
    document: dict[str, Any]
    reused: bool

    @property
    def network(self) -> Path:
        """The network it gave, where it gave one."""
        return self.folder / "model.onnx"


def digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise RecipeError(f"cannot read {file.name}: {error.strerror}") from None


def key(run: str, files: Sequence[Path], values: Sequence[tuple[str, Any]]) -> str:
    """The digest under which a stage's result is kept: command, version, contents of files, options."""
    told = json.dumps([__version__, run, [digest(file) for file in files], list(values)], default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def kept(store: Path, name: str) -> Result | None:
    """The result under that name, where a stage was finished."""
    note = store / name / DONE
    try:
        said = json.loads(note.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{note} is damaged; delete its folder to run the stage again: {error}") from None
    return Result(store / name, int(said["code"]), said["document"], True)


def fresh(store: Path) -> Path:
    """An empty folder in which a stage may work; `keep` gives it its name."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".work-", dir=store))
    except OSError as error:
        raise OutputError(f"cannot write into {store}: {error.strerror}") from None


def keep(store: Path, name: str, work: Path, code: int, document: dict[str, Any]) -> Result:
    """Make a finished folder the result of that name; what another run put there in the meantime stays."""
    note = work / DONE
    with note.open("w") as file:
        file.write(json.dumps({"code": code, "document": document}))
        file.flush()
        os.fsync(file.fileno())
    try:
        work.rename(store / name)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        found = kept(store, name)
        if found is None:
            raise OutputError(f"cannot move a stage's result to {store / name}") from None
        return found
    return Result(store / name, code, document, False)


def swept(store: Path) -> None:
    """Remove what killed runs left unfinished."""
    for left in store.glob(".work-*"):
        shutil.rmtree(left, ignore_errors=True)
