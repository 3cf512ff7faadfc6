"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A suite that a shell's `&` started, deaf to interrupts, hears them, and its processes do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Evaluation data beside the repository, or at SUTURA_DATA; absent on most machines, present in CI."""
    place = Path(os.environ.get("SUTURA_DATA", ROOT.parent / "shared" / "data"))
    if not (place / "acasxu").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have the evaluation data; nothing at {place}")
        pytest.skip(f"evaluation data not found at {place}; set SUTURA_DATA to its folder")
    return place
