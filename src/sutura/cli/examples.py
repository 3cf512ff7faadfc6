"""Where the examples lie: in the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def examples_folder() -> Path:
    """The folder of the examples that come with sutura."""
    installed = PACKAGE / "examples"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "examples"
