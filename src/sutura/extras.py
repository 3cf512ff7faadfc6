"""Optional packages: asked for by name where they are needed, missed in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sutura.errors import MissingExtraError


def require(package: str, extra: str) -> Any:
    """The module `package`; raises MissingExtraError, which names the extra that brings it."""
    try:
        return import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise MissingExtraError(f"{missing} is not installed; run: pip install 'sutura[{extra}]'") from None
