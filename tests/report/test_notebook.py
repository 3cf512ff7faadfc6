"""What a notebook shows of a result: short, whole by itself, and nothing of a user's text unescaped."""

from __future__ import annotations

import html.parser
import subprocess
import sys

import numpy as np
import pytest

import sutura
from sutura.certificate.claim import claim
from sutura.gates.deliver import Repair
from sutura.gates.regions import Regions
from sutura.risk.quantify import RiskResult
from sutura.verdict.difference import Difference, Seen
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Violated, Witness

ACCOUNT = Account(1234, 0.5, 1.25)
POINT = np.arange(9, dtype=np.float32)


class Texts(html.parser.HTMLParser):
    """The texts of a piece of HTML; complains of a tag that is not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "strong", "table", "tr", "th", "td"}
        assert not {"src", "href"} & {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def texts(result):
    shown = result._repr_html_()
    assert shown == sutura.html(result)
    parser = Texts()
    parser.feed(shown)
    assert not parser.open
    return parser.texts


def regions():
    counted = dict.fromkeys(Regions.__dataclass_fields__, 1)
    return Regions(**counted)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Outcome(Proved(), ACCOUNT), ["proved", "1,234", "50.00%", "1.25"]),
        (Outcome(Proved(claim("reals")), ACCOUNT), ["holds in real arithmetic", "HOLDS-REAL"]),
        (Outcome(Unknown("timed out <b>"), ACCOUNT), ["unknown", "timed out <b>"]),
        (
            Outcome(Violated(Witness(POINT, POINT[:1], 0)), ACCOUNT),
            ["violated", "0, 1, 2, 3, 4, 5, 6, 7, ... (9 numbers)", "0"],
        ),
        (
            Repair(b"12345", b"123", regions(), True, "a note & more", 1.0, 2.0),
            ["certified: every property is proved, and the checker accepts it", "a note & more"],
        ),
        (Repair(b"1", b"", regions(), True, "", 1.0, 2.0), ["not certified: regions are left unproved"]),
        (
            Difference(
                POINT[:1] - 1.0, POINT[:1] + 2.0, (POINT, POINT), (POINT[:1], POINT[:1] + 1),
                Seen(POINT, POINT, POINT), 1.0, None, claim(), 7, 0.5,
            ),
            ["no output differs by more than 2 (certified)", "1", "proved", "7", "0.50"],
        ),
        (
            RiskResult(0.25, 0.5, None, None, "PROVED", 3, 1.0),
            ["no risk within 0.25", "0.25 (PROVED)", "none found", "none", "3"],
        ),
        (RiskResult(0.0, np.inf, 0.5, None, "ESTIMATED", 3, 1.0, "why"), ["no radius is certified", "why"]),
    ],
)  # fmt: skip
def test_results_show_themselves(result, words):
    found = texts(result)
    for word in words:
        assert word in found


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="html\\(\\) shows Outcome, Repair, Difference, RiskResult, not str"):
        sutura.html("text")


def test_a_room_that_computes_does_not_load_the_report():
    code = "import sys, sutura.verdict.outcome; print([m for m in sys.modules if 'sutura.report' in m])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
