"""The tutorial notebooks run from top to bottom."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
SYSTEMS = ("repair", "risk", "calibrate", "compress", "shift", "condense")
TRAIN = ("calibrate", "condense")

RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
place = {"metadata": {"path": sys.argv[2]}}
NotebookClient(book, timeout=240, kernel_name="python3", resources=place).execute()
"""


def test_there_is_one_for_each_system_and_none_is_large():
    places = {place.stem: place for place in TUTORIALS.glob("*.ipynb")}
    assert set(places) == set(SYSTEMS)
    for place in places.values():
        assert place.stat().st_size < 250_000, place
        cells = json.loads(place.read_text())["cells"]
        assert not any(o["output_type"] == "error" for c in cells for o in c.get("outputs", []))


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_runs(tmp_path, name):
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        pytest.skip("notebooks need nbclient and ipykernel: pip install 'sutura[test]'")
    if name in TRAIN and find_spec("onnxscript") is None:
        pytest.skip("the tutorial trains: pip install 'sutura[torch]'")
    command = [sys.executable, "-c", RUN, str(TUTORIALS / f"{name}.ipynb"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
