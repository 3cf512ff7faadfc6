"""Documents are valid JSON, and the decision map is a picture or a clear refusal."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from sutura import __version__
from sutura.certificate.schema import Certificate, Counts, PropertyEntry, dumps
from sutura.errors import MismatchError, MissingExtraError
from sutura.gates.deliver import Repair
from sutura.gates.evaluate import Inside, Outside
from sutura.gates.regions import Regions
from sutura.network.inspect import Inspection, NodeReport
from sutura.property.build import argmax_in, box
from sutura.report import decision_map, document
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Violated, Witness

NAN = float("nan")
INSIDE = Inside("p", 10, 0.5, 0.0, 1.0, 1.0, 0.0, NAN, NAN, 0.1)


def strict(value):
    """Through JSON text that has no NaN, and back."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_the_envelope_names_schema_and_version():
    found = document.document("repair", {"a": 1})
    assert list(found) == ["schema", "version", "sutura", "a"]
    assert (found["schema"], found["version"], found["sutura"]) == ("sutura/repair", 1, __version__)


def test_what_was_not_measured_is_null():
    body = {"estimates": document.figures([INSIDE], Outside(0, NAN)), "list": (1.5, float("inf"), [NAN])}
    found = strict(document.document("repair", body))
    assert found["estimates"]["inside"][0]["change_wrong"] is None
    assert found["estimates"]["inside"][0]["change_all"] == 0.1
    outside = found["estimates"]["outside"]
    assert outside.pop("samples") == 0
    assert outside
    assert set(outside.values()) == {None}
    assert found["list"] == [1.5, None, [None]]


def test_verdicts():
    account = Account(7, 0.25, 1.5)
    proved = strict(document.outcome("p", Outcome(Proved(), account)))
    assert (proved["verdict"], proved["boxes"], proved["proved_share"]) == ("proved", 7, 0.25)
    assert any("binary32" in line for line in proved["assumptions"])
    unknown = strict(document.outcome("p", Outcome(Unknown("timed out"), account)))
    assert (unknown["verdict"], unknown["reason"]) == ("unknown", "timed out")
    witness = Witness(np.float32([0.1, -0.0]), np.float32([3]), 1)
    violated = strict(document.outcome("p", Outcome(Violated(witness), account)))
    assert violated["verdict"] == "violated"
    assert violated["witness"]["case"] == 1
    assert [float.fromhex(v) for v in violated["witness"]["input_hex"]] == [float(np.float32(0.1)), -0.0]
    assert violated["witness"]["output"] == [3.0]


HASH = "0" * 64
WRITTEN = dumps(Certificate(HASH, HASH, (PropertyEntry("p", HASH),), b"\0", Counts(1, 1, 0, 0, 1), "sutura"))


def test_a_repair():
    regions = Regions(3, 0, 2, 0, 2, 0, 0.9)
    found = strict(
        document.repair(Repair(b"12", WRITTEN, regions, True, "odd", 1.0, 0.5), [{"a": 1}], {"f": "network"})
    )
    assert found["regions"]["output_gated"] == 2
    assert found["bytes"] == {"onnx": 2, "certificate": len(WRITTEN)}
    assert found["level"] == "PROVED"
    assert len(found["assumptions"]) == 4
    assert found["seconds"] == {"search": 1.0, "check": 0.5}
    assert found["before"] == [{"a": 1}]
    assert found["nearest_safe_output"] is True
    assert found["note"] == "odd"


def test_an_inspection_keeps_unknown_shapes():
    node = NodeReport("n", "Relu", ((3,), None), None, False, "no", 0, 0)
    found = strict(document.inspection(Inspection("f", "00", 17, "x", (3,), "y", None, (node,))))
    assert found["supported"] is False
    assert found["nodes"][0]["inputs"] == [[3], None]
    assert found["nodes"][0]["output"] is None


WANTED = [argmax_in(box([0, 0, 0], [1, 0.5, 2]), [0], outputs=2)]


def scores(x):
    return np.stack([x[:, 0], x[:, 2]], axis=1)


def no_rows(x):
    return np.zeros(len(x), np.int64)


def sampled(monkeypatch):
    monkeypatch.setattr(decision_map, "PIXELS", 24)
    seen = decision_map.view(WANTED, None, "argmax")
    return seen, decision_map.sample(
        (scores, lambda x: scores(x) + np.float32([9, 0]), no_rows), WANTED, seen
    )


def test_the_map_shows_the_two_widest_inputs_around_the_boxes(monkeypatch):
    seen, found = sampled(monkeypatch)
    assert seen.axes == (0, 2)
    assert seen.point.tolist() == [0.5, 0.25, 1.0]
    assert found.before.shape == (24, 24)
    assert found.extent == pytest.approx((-0.35, 1.35, -0.7, 2.7))
    assert found.moved.all()
    assert found.wrong_before.any()
    assert not found.wrong_before.all()
    assert not found.wrong_after.any()


@pytest.mark.parametrize("title", ["plain", "a$b$c and 100 % _{x}", "$"])
def test_the_map_is_a_png_whatever_the_name(monkeypatch, title):
    pytest.importorskip("matplotlib")
    seen, found = sampled(monkeypatch)
    picture = decision_map.draw(found, WANTED, seen, title)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")


def test_without_matplotlib_the_map_says_what_to_install(monkeypatch):
    seen, found = sampled(monkeypatch)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sutura\[plot\]'"):
        decision_map.draw(found, WANTED, seen, "t")
    monkeypatch.setattr(decision_map, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sutura\[plot\]'"):
        decision_map.check_possible(WANTED)


def test_one_input_makes_no_map():
    one = [argmax_in(box([0], [1]), [0], outputs=2)]
    with pytest.raises(MismatchError, match="two inputs"):
        decision_map.check_possible(one)
    with pytest.raises(MismatchError, match="two inputs"):
        decision_map.view(one, None, "argmax")
