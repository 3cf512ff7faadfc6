"""The page of evidence in headless Chromium: phone and desktop, light and dark, and on paper."""

from __future__ import annotations

import base64
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sutura.report.card import card
from sutura.report.document import document
from sutura.report.page import page

SIZES = {"phone": (375, 812), "desktop": (1280, 900)}
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def browser():
    """Chromium as the machine has it; CHROMIUM names another. Its event loop must end with this file."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    place = next((found for name in names if name and (found := shutil.which(name))), None)
    if place is None:
        pytest.skip("no Chromium found; install one (apt-get install chromium) or set CHROMIUM to it")
    with sync.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield opened
        opened.close()


def png(width, height):
    pyplot = pytest.importorskip("matplotlib.figure")
    figure = pyplot.Figure(figsize=(width, height))
    figure.subplots().plot([0, 1], [1, 0])
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=100)
    return base64.b64encode(held.getvalue()).decode()


def known(name, verdict, **more):
    words = ["the hardware does not fail", "the network is executed as its file says"]
    said = {"property": name, "verdict": verdict, "level": "PROVED", "assumptions": words}
    return {**said, "earlier": "", "carried": False, **more}


def stage(run, body, **more):
    return {"run": run, "options": {"seed": 0}, "document": document(run, body), "picture": "", **more}


def claims(*verdicts):
    return [known(f"property_{at}.vnnlib", verdict) for at, verdict in enumerate(verdicts)]


VERIFIED = {"properties": [{"property": "a.vnnlib", "verdict": "violated", "proved_share": 0.5}]}
SIZE = {"params": 1000, "macs": 2000, "bytes": 4000, "runtime_seconds": 1e-5, "accuracy": 0.98}
SMALLER = SIZE | {"target": 0.5, "params": 500, "macs": 900, "bytes": 2100, "accuracy": 0.97}
OUTPUT = {"certified": [-0.1, 0.2], "separate": [-1.0, 1.4], "seen": [-0.08, 0.15]}
BINS = [{"samples": 10 * at, "accuracy": at / 10, "confidence": at / 10 + 0.05} for at in range(10)]
SCORES = {"ece": 0.08, "nll": 0.3, "accuracy": 0.98}
STAGES = {
    "verify": lambda: stage("verify", VERIFIED),
    "compress": lambda: stage("compress", {"before": SIZE, "compressed": [SMALLER]}),
    "calibrate": lambda: stage(
        "calibrate", {"before": SCORES, "after": SCORES, "reliability": {"before": BINS, "after": BINS[::-1]}}
    ),
    "shift": lambda: stage("shift", {
        "bits_per_weight": {"before": 32.0, "after": 5.5}, "bytes": {"packed": 1234}, "accuracy": None,
        "layers": [{"name": f"a_rather_long_name_{k}", "relative_error": 0.02 * k} for k in (1, 2)],
        "note": "accuracies and times are estimates by sampling",
    }),
    "diff": lambda: stage("diff", {
        "outputs": [OUTPUT] * 3, "decides_alike": None, "largest": {"certified": 0.2, "seen": 0.15},
    }),
    "condense": lambda: stage("condense", {
        "layers": [{"node": "relu_0", "neurons": 32, "counts": [{"lines": 20}]}], "merged": None,
    }),
    "repair": lambda: stage("repair", {
        "regions": {"proved": 210, "proved_share": 0.83, "output_gated": 58, "neuron_gated": 0},
        "after": "certified", "level": "PROVED", "note": "",
    }, picture=png(13, 4.6)),
    "evaluate": lambda: stage("evaluate", {
        "certificate": {"accepted": True, "reason": ""}, "outside": None, "bytes": {"before": 1, "after": 2},
        "attack": [{"property": "p", "points": 1408, "violating_before": 3, "violating_after": 0}],
        "speed": [{"batch": 1, "before": 1.5e-5, "after": 2.3e-5, "ratio": 1.5}],
    }),
    "risk": lambda: stage("risk", {"results": [
        {"lower": 0.01 * at, "upper": 0.013 * at if at % 4 else None} for at in range(1, 20)
    ]}),
}  # fmt: skip
"""A stage of every kind, with a document as its command gives it."""

REPORTS = {
    "first": (["verify", "compress", "shift", "diff", "repair", "evaluate"], ("certified", "certified")),
    "images": (["calibrate", "compress", "repair", "risk"], ("certified",) * 100),
    "mixed": (["condense", "verify"], ("proved", "violated", "unknown", "not asked")),
}


def report(name):
    runs, verdicts = REPORTS[name]
    return document("ship", {
        "name": "A network with an unusually long name that does not fit one line of a phone",
        "original": {"name": "original.onnx", "sha256": "0" * 64, "bytes": 4000},
        "network": {"name": "model.onnx", "sha256": "1" * 64, "bytes": 2100},
        "certificate": "2" * 64 if "repair" in runs else None,
        "properties": claims(*verdicts),
        "sizes": [{"after": "original", "bytes": 4000}, {"after": "compress", "bytes": 2100}],
        "stages": [STAGES[run]() for run in runs],
    })  # fmt: skip


def test_a_stage_of_every_kind_is_among_the_reports():
    from sutura.ship.catalogue import ROLES

    assert {run for runs, _ in REPORTS.values() for run in runs} == set(ROLES)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REPORTS)
def test_it_is_whole_in_the_browser(browser, tmp_path, name, size, scheme):
    told = report(name)
    place = tmp_path / "report.html"
    place.write_text(page(told))
    assert card(told).startswith("---\n")
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    shown = context.new_page()
    complaints, asked = [], []
    shown.on("console", lambda said: complaints.append(said.text))
    shown.on("pageerror", lambda said: complaints.append(str(said)))
    shown.on("request", lambda sent: asked.append(sent.url))
    shown.goto(place.as_uri())
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shot = tmp_path / f"{name}-{size}-{scheme}.png"
    shown.screenshot(path=shot, full_page=True)
    if kept := os.environ.get("SUTURA_SCREENSHOTS"):
        shutil.copy(shot, Path(kept) / shot.name)
    shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    drawn = shown.evaluate(PLOTS)
    assert len(drawn) >= len(REPORTS[name][0])
    for plot in drawn:
        assert plot["width"] > 200, plot
        assert plot["height"] > 20, plot
        assert plot["loaded"], plot
    for target in shown.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"):
        assert target.startswith("#"), target
        assert shown.locator(target).count() == 1, target
    light, dark = shown.evaluate(CONTRAST)
    assert abs(light - dark) > 100, "text and background are too near each other"
    assert (light > dark) == (scheme == "light")
    context.close()


PLOTS = """[...document.querySelectorAll('svg, img')].map(e => {
  const box = e.getBoundingClientRect();
  return {width: box.width, height: box.height, loaded: e.tagName !== 'IMG' || e.naturalWidth > 0};
})"""
CONTRAST = """(() => {
  const style = getComputedStyle(document.body);
  const level = text => text.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;
  return [level(style.backgroundColor), level(style.color)];
})()"""


def test_it_prints(browser, tmp_path):
    place = tmp_path / "report.html"
    place.write_text(page(report("first")))
    context = browser.new_context(color_scheme="dark")
    shown = context.new_page()
    shown.goto(place.as_uri())
    shown.emulate_media(media="print")
    paper, ink = shown.evaluate(CONTRAST)
    assert (paper, ink) == (255, 0)
    assert not shown.locator("details.data").first.is_visible()
    printed = shown.pdf(format="A4", print_background=False)
    assert printed.startswith(b"%PDF")
    assert len(np.frombuffer(printed, np.uint8)) > 10_000
    context.close()
