"""packed.c as a library: built once by the system's C compiler into the user's own cache, loaded from there.

Built at first use and not at install, so that the package stays one wheel of plain Python that installs
everywhere; a machine without a compiler decodes instead, and says so. Nothing is loaded from a place that
another user could write to.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from sutura.errors import ShiftError

SOURCE = Path(__file__).with_name("packed.c")

FLAGS = ("-O3", "-shared", "-fPIC")
"""No -march: packed.c has a version for each kind of machine and picks one when it runs."""

PATIENCE = 120.0
"""Seconds that the compiler may take."""


class Matrix(ctypes.Structure):
    """The struct Matrix of packed.c; it borrows what its addresses point to."""

    _fields_ = (
        ("fields", ctypes.c_void_p),
        ("signs", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("unit", ctypes.c_float),
    )


def library(cache: Path | None = None) -> ctypes.CDLL:
    """The loaded library, built where the cache folder (by default the user's) does not hold it yet.

    Raises ShiftError, which says why in one line: no compiler, a compiler that fails, or a folder that is not
    the user's alone.
    """
    folder = _own_folder(cache or _user_cache())
    place = folder / f"packed-{_digest()}.so"
    try:
        if not place.exists():
            _build(place)
        _check_own(place)
        return _typed(ctypes.CDLL(str(place)))
    except OSError as error:
        raise ShiftError(f"the kernels cannot be loaded from {place}: {error}") from None


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "sutura"


def _digest() -> str:
    """Tells source, flags and machine apart."""
    said = SOURCE.read_bytes() + " ".join((*FLAGS, platform.machine(), platform.system())).encode()
    return hashlib.sha256(said).hexdigest()[:24]


def _own_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(folder)
    except (OSError, RuntimeError) as error:
        raise ShiftError(f"kernels need a cache folder, and {folder} cannot be used: {error}") from None
    return folder


def _check_own(place: Path) -> None:
    """Raise ShiftError where another user owns `place` or may write to it, or it is a link."""
    held = place.lstat()
    owned = not hasattr(os, "geteuid") or held.st_uid == os.geteuid()
    if stat.S_ISLNK(held.st_mode) or not owned or held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ShiftError(f"kernels are not loaded from {place}: others could write there; chmod go-w it")


def _build(place: Path) -> None:
    """Compile beside `place` and rename: another process sees a whole file or none."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise ShiftError("there is no C compiler (cc, or $CC) to build the kernels for packed weights with")
    handle, name = tempfile.mkstemp(prefix="building-", suffix=".so", dir=place.parent)
    os.close(handle)
    made = Path(name)
    try:
        ran = subprocess.run(
            [compiler, *FLAGS, "-o", name, str(SOURCE)], capture_output=True, timeout=PATIENCE, check=False
        )
        if ran.returncode:
            said = " ".join(ran.stderr.decode(errors="replace").split())[:200]
            raise ShiftError(f"{compiler} cannot build the kernels for packed weights: {said}")
        made.chmod(0o700)
        made.replace(place)
    except subprocess.TimeoutExpired:
        raise ShiftError(f"{compiler} took more than {PATIENCE:.0f} s over the kernels") from None
    finally:
        made.unlink(missing_ok=True)


def _typed(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, whole, matrix = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Matrix)
    for name in ("sutura_floats", "sutura_whole", "sutura_sums"):
        getattr(found, name).argtypes = (matrix, pointer, whole, pointer, ctypes.c_int)
    found.sutura_decoded.argtypes = (matrix, whole, whole, pointer, ctypes.c_int)
    found.sutura_decoded.restype = None
    return found
