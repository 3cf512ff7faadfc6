"""The site builds without a warning, and no page of it loads anything from elsewhere."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Loads(html.parser.HTMLParser):
    """What a page loads by itself: scripts, styles, fonts, pictures."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(said.get("src"))
        if tag == "link" and said.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(said.get("href"))


def test_it_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_click", "mkdocs_jupyter"):
        if find_spec(package) is None:
            pytest.skip(f"the site needs {package}: pip install 'sutura[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert built.returncode == 0, built.stderr[-4000:]
    assert "WARNING" not in built.stderr, built.stderr[-4000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        seen = Loads()
        seen.feed(page.read_text())
        away = [url for url in seen.found if url and url.startswith(("http:", "https:", "//"))]
        assert away == [], page
