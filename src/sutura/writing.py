"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sutura.errors import OutputError


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write every file beside its place, then move all of them there; a file in its place is replaced.

    Raises OutputError where one cannot be written; then, as when interrupted, every place is as it was.
    """
    spare: list[Path] = []
    whole = {_followed(place): data for place, data in files.items()}
    try:
        ready = {place: _beside(place, data, spare) for place, data in whole.items()}
        _move(ready, {place: _kept(place, spare) for place in whole})
    finally:
        for file in spare:
            file.unlink(missing_ok=True)


def _move(ready: Mapping[Path, Path], before: Mapping[Path, Path | None]) -> None:
    """Move all files to their places, or none."""
    try:
        for place, new in ready.items():
            try:
                new.replace(place)
            except OSError as error:
                raise _failure(place, error) from None
    except BaseException:
        for place, new in ready.items():
            if not new.exists():
                _restore(place, before[place])
        raise


def _followed(place: Path) -> Path:
    """Where a link leads; the place itself where it is none."""
    try:
        return place.resolve() if place.is_symlink() else place
    except (OSError, RuntimeError, ValueError) as error:
        raise _failure(place, error) from None


def _beside(place: Path, data: bytes, spare: list[Path]) -> Path:
    """A file with the data beside its place, listed among the spare ones as soon as it exists."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{place.name[:64]}.", dir=place.parent)
        spare.append(Path(name))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        spare[-1].chmod(0o644)
    except (OSError, ValueError) as error:
        raise _failure(place, error) from None
    return spare[-1]


def _kept(place: Path, spare: list[Path]) -> Path | None:
    """A second copy of the file that is in the place now, None where there is none."""
    if not place.exists():
        return None
    try:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "there is a folder of this name")
        handle, name = tempfile.mkstemp(prefix=f".{place.name[:64]}.", dir=place.parent)
        os.close(handle)
        spare.append(Path(name))
        shutil.copy2(place, name)
    except OSError as error:
        raise _failure(place, error) from None
    return spare[-1]


def _restore(place: Path, old: Path | None) -> None:
    if old is None:
        place.unlink(missing_ok=True)
    else:
        old.replace(place)


def _failure(place: Path, error: Exception) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "no file can have this name"
    return OutputError(f"cannot write {place}: {reason}; nothing was written")
