"""Every block of shell and Python in the docs runs as it stands, in a copy of the example's folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<kind>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)
PAGES = sorted(str(place.relative_to(DOCS)) for place in DOCS.rglob("*.md"))
NEEDS = {"how-to/calibrate.md": ("torch", "onnxscript"), "how-to/shift.md": ("safetensors",)}
"""Page -> packages that it says it needs."""


def blocks(page):
    return [(m["why"], m["kind"], m["code"]) for m in BLOCK.finditer((DOCS / page).read_text())]


def test_pages_with_blocks_are_found():
    assert sum(bool(blocks(page)) for page in PAGES) >= 15
    assert all(why is None or len(why) > 20 for page in PAGES for why, _, _ in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_blocks_of_a_page_run(tmp_path, page):
    for package in NEEDS.get(page, ()):
        if find_spec(package) is None:
            pytest.skip(f"the page needs {package}")
    work, tools = tmp_path / "work", tmp_path / "bin"
    shutil.copytree(ROOT / "examples" / "vertical_cas", work)
    tools.mkdir()
    for name, words in (("sutura", "-m sutura"), ("python", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MPLBACKEND": "agg"}
    for why, kind, code in blocks(page):
        if why is not None:
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        ran = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, f"{page}:\n{code}\n{ran.stdout}\n{ran.stderr}"


def test_every_command_has_a_page():
    from sutura.cli.app import COMMANDS

    there = {place.stem for place in (DOCS / "how-to").glob("*.md")}
    assert set(COMMANDS) - {"supports", "status"} - there == set()


def test_the_table_of_operators_is_the_program_s():
    told = subprocess.run(
        [sys.executable, "-c", "import operators_table as t; print(t.page(), end='')"],
        cwd=DOCS, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (DOCS / "operators.md").read_text() == told.stdout
    from sutura.network.onnx_read import OPERATORS

    assert all(f"| `{name}` |" in told.stdout for name in OPERATORS)
