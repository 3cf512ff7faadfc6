"""The house rules that tools can check: style, types, one-way imports."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def tool(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def test_ruff_finds_nothing():
    found = tool(BIN / "ruff", "check", ".")
    assert found.returncode == 0, found.stdout


def test_ruff_would_format_nothing():
    found = tool(BIN / "ruff", "format", "--check", ".")
    assert found.returncode == 0, found.stdout


def test_imports_go_one_way():
    found = tool(BIN / "lint-imports")
    assert found.returncode == 0, found.stdout


def test_types_are_strict():
    if find_spec("torch") is None:
        pytest.skip("the types of the PyTorch parts need the torch extra: pip install 'sutura[torch]'")
    found = tool(BIN / "pyright", "--pythonpath", sys.executable)
    if found.returncode not in (0, 1) and not os.environ.get("CI"):
        pytest.skip(f"pyright cannot start here: {found.stderr.strip()[-200:]}")
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-1000:]
