"""Recipes: read strictly, run once, resumed after a kill, and only true things said of what ships."""

from __future__ import annotations

import hashlib
import html.parser
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from sutura.cli.app import main
from sutura.cli.ship import catalogue
from sutura.errors import RecipeError
from sutura.report.page import page
from sutura.ship.catalogue import ROLES
from sutura.ship.recipe import read_recipe, written

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
RECIPE = """
name = "A <b>careful</b> network"
network = "vertical_cas.onnx"
properties = ["no_climb.vnnlib"]

[[stage]]
run = "verify"

[[stage]]
run = "condense"
merge = 0.97

[[stage]]
run = "repair"
boxes = 150
workers = 1
decision = "argmin"
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("vertical_cas.onnx", "no_climb.vnnlib"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def say(*arguments):
    return CliRunner().invoke(main, ["ship", *map(str, arguments)])


def core(place):
    return {name: (place / name).read_bytes() for name in ("model.onnx", "certificate.json", "recipe.toml")}


def test_the_chain_ends_in_a_certified_network_and_its_evidence(folder):
    first = say(folder / "recipe.toml", "-o", folder / "out", "--json")
    assert first.exit_code == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["schema"] == "sutura/ship"
    (known,) = report["properties"]
    assert known["verdict"] == "certified"
    assert known["assumptions"]
    assert [s["after"] for s in report["sizes"]] == ["original", "condense", "repair"]
    out = folder / "out"
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    files = [out / "model.onnx", out / "properties/no_climb.vnnlib", out / "certificate.json"]
    checked = CliRunner().invoke(main, ["check", *map(str, files)])
    assert checked.exit_code == 0, checked.stderr
    again = say(folder / "recipe.toml", "-o", out)
    assert again.exit_code == 0
    assert again.stderr.count("kept from before") == 3
    kept = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    shutil.rmtree(out / "properties")
    for name in kept:
        (out / name).unlink()
    assert say(folder / "recipe.toml", "-o", out).exit_code == 0
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == kept


def test_a_killed_run_goes_on_to_the_same_artefacts(folder):
    assert say(folder / "recipe.toml", "-o", folder / "whole").exit_code == 0
    command = [sys.executable, "-m", "sutura", "ship", str(folder / "recipe.toml"), "-o", str(folder / "out")]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    store = folder / "out" / ".stages"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(store.glob("[0-9a-f]*/stage.json")):
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list(store.glob("[0-9a-f]*/stage.json"))
    resumed = say(folder / "recipe.toml", "-o", folder / "out")
    assert resumed.exit_code == 0
    assert "kept from before" in resumed.stderr
    assert core(folder / "out") == core(folder / "whole")
    assert not list(store.glob(".work-*"))


def test_what_was_proved_of_another_network_is_not_said_of_this_one(folder):
    shutil.copy(EXAMPLE / "alert.vnnlib", folder / "alert.vnnlib")
    text = 'network = "vertical_cas.onnx"\nproperties = ["alert.vnnlib"]\n[[stage]]\nrun = "verify"\n'
    (folder / "recipe.toml").write_text(text + '[[stage]]\nrun = "condense"\nmerge = 0.97\n')
    said = say(folder / "recipe.toml", "-o", folder / "out", "--json")
    assert said.exit_code == 3
    (known,) = json.loads(said.stdout)["properties"]
    assert known["verdict"] == "not asked"
    assert known["earlier"] == "before condense"
    (folder / "recipe.toml").write_text(text)
    plain = say(folder / "recipe.toml", "-o", folder / "out", "--json")
    assert plain.exit_code == 0
    assert json.loads(plain.stdout)["properties"][0]["verdict"] == "proved"


def test_a_stage_that_refuses_says_so_in_one_line(folder):
    stages = '[[stage]]\nrun = "condense"\nmerge = 7.0\n'
    (folder / "recipe.toml").write_text('network = "vertical_cas.onnx"\n' + stages)
    result = say(folder / "recipe.toml", "-o", folder / "out")
    assert result.exit_code == 2
    assert "share of hidden neurons" in result.stderr
    assert not (folder / "out" / "model.onnx").exists()
    assert not list((folder / "out" / ".stages").glob("*/stage.json"))


TOP = 'network = "vertical_cas.onnx"\n'
STAGE = TOP + '[[stage]]\nrun = "condense"\n'
WRONG = {
    "toml": ("network = [", "no TOML"),
    "top": ('netwrk = "a.onnx"', "did you mean 'network'"),
    "stages": (TOP, "at least one"),
    "kind": ("network = 3\n[[stage]]\nrun = 'verify'", "give text"),
    "run": (TOP + '[[stage]]\nrun = "verifi"', "did you mean 'verify'"),
    "option": (STAGE + "merg = 1", "did you mean 'merge'"),
    "reserved": (STAGE + 'out = "x"', "unknown key 'out'"),
    "flag": (STAGE + 'plot = "p.png"', "true or false"),
    "value": (STAGE + "merge = []", "a number or text"),
    "file": ('network = "none.onnx"\n[[stage]]\nrun = "condense"', "no file none.onnx"),
    "both": (TOP + '[module]\nsource = "m.py:f"\ninput = [3]\n[[stage]]\nrun = "condense"', "or a table"),
    "code": ('[module]\nsource = "m.py:f"\ninput = [3]\n[[stage]]\nrun = "condense"', "--run-code"),
    "source": (
        '[module]\nsource = "m.py"\ninput = [3]\n[[stage]]\nrun = "condense"',
        "a file and a function",
    ),
    "shape": ('[module]\nsource = "m.py:f"\ninput = 3\n[[stage]]\nrun = "condense"', "shape of one sample"),
    "pattern": (TOP + 'properties = ["q*.vnnlib"]\n[[stage]]\nrun = "verify"', "no file matches q*.vnnlib"),
    "twice": (
        TOP + 'properties = ["*.vnnlib", "no_climb.vnnlib"]\n[[stage]]\nrun = "verify"',
        "two properties",
    ),
    "properties": (TOP + '[[stage]]\nrun = "verify"', "needs properties"),
}


@pytest.mark.parametrize("name", WRONG)
def test_recipes_are_refused_in_one_line(folder, name):
    text, told = WRONG[name]
    (folder / "recipe.toml").write_text(text)
    result = say(folder / "recipe.toml")
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    with pytest.raises(RecipeError):
        read_recipe(folder / "recipe.toml", catalogue())


def test_the_written_recipe_reads_as_the_same_one_with_every_default(folder):
    stages = catalogue()
    read = read_recipe(folder / "recipe.toml", stages)
    text = written(read)
    (folder / "again.toml").write_text(text)
    again = read_recipe(folder / "again.toml", stages)
    assert again.stages == read.stages
    assert again.name == read.name
    assert tomllib.loads(text)["stage"][2]["gate"] == "output"


CODE = {
    "raises": ("def f():\n    raise ValueError('out of\\nluck')", "m.py:f raised ValueError: out of luck"),
    "name": ("def g():\n    return 1", "m.py has no function 'f'"),
    "kind": ("def f():\n    return 1", "gave a int"),
    "syntax": ("def f(:", "raised SyntaxError"),
}


@pytest.mark.parametrize("name", CODE)
def test_modules_are_refused_in_one_line(folder, name):
    pytest.importorskip("torch")
    text, told = CODE[name]
    (folder / "m.py").write_text(text)
    (folder / "recipe.toml").write_text(WRONG["code"][0])
    result = say(folder / "recipe.toml", "--run-code", "-o", folder / "out")
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((folder / "out" / ".stages").glob("*"))


def test_every_stage_is_a_command_with_options():
    stages = catalogue()
    assert set(stages) <= set(ROLES)
    assert {"verify", "repair", "compress", "calibrate", "condense", "risk", "diff", "evaluate"} <= set(
        stages
    )
    assert stages["compress"]["target"].default == "0.5"
    assert stages["repair"]["boxes"].kind == "value"
    assert stages["risk"]["data"].kind == "path"


class Page(html.parser.HTMLParser):
    """Every tag closed, and nothing loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "rect", "link", "br"):
            self.open.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href") and not v.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        self.loads += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_loads_nothing():
    report = {
        "sutura": "0",
        "name": "<script>alert(1)</script>",
        "original": {"name": "a.onnx", "sha256": "00", "bytes": 1},
        "network": {"name": "model.onnx", "sha256": "11", "bytes": 2},
        "certificate": None,
        "properties": [
            {"property": "p&q", "verdict": v, "level": "", "assumptions": ["x"], "earlier": ""}
            for v in ("certified", "proved", "violated", "unknown", "not asked")
        ],
        "sizes": [{"after": "original", "bytes": 1}, {"after": "repair", "bytes": 2}],
        "stages": [{"run": "odd", "options": {"a": "</pre>"}, "document": {"b": "<i>"}, "picture": "AAAA"}],
    }
    text = page(report)
    assert "<script>" not in text
    assert "p&amp;q" in text
    seen = Page()
    seen.feed(text)
    assert seen.open == []
    assert seen.loads == []
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_the_shipped_recipe_reads():
    read = read_recipe(EXAMPLE / "ship.toml", catalogue())
    assert [stage.run for stage in read.stages] == ["verify", "condense", "diff", "repair", "evaluate"]
