"""A property in parts: the parts hold all that is not proved, and their join never says more than they do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from campaign_files import LARGE, at_most, mlp, most
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.campaign.executor import Serial
from sutura.campaign.pool import Pool
from sutura.campaign.split import Cut, Part, cut, joined, verify_split
from sutura.cli.app import main
from sutura.errors import CampaignError
from sutura.network.read import load
from sutura.network.run import open_session
from sutura.property.build import box, output_bound
from sutura.property.read import parse_property
from sutura.property.spec import violates
from sutura.property.write import write
from sutura.verdict.outcome import Proved, Unknown, Violated
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

NET = mlp((3, 12, 12, 1), 3)
LOADED = load(NET)
PROGRAM = under(lower(LOADED.network), EXECUTIONS["float32-any-order"], {"Gemm", "Relu"})
RUN = runner(open_session(NET))
TOP = most(NET, 3)
BIG = mlp(LARGE, 2)


def ends(prop):
    return [tuple(v.astype(np.float64) for v in case.box.float32_hull()) for case in prop.cases]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.decimals(-1, 1, places=9), min_size=3, max_size=3),
    st.lists(st.decimals(0, 1, places=9), min_size=3, max_size=3),
    st.sampled_from([2, 5, 16]),
    st.floats(-0.5, 0.3),
    st.integers(0, 2**31),
)
def test_what_no_part_holds_is_safe(low, width, least, above, seed):
    """Points of the whole box, its corners with it: each in a part, or proved (here: seen) safe."""
    region = box(low, [a + b for a, b in zip(low, width, strict=True)])
    prop = output_bound(region, 0, upper=str(round(TOP + above, 6)), name="p")
    found = cut(PROGRAM, prop, least)
    ((whole_low, whole_high),) = ends(prop)
    draw = np.random.default_rng(seed)
    points = draw.uniform(whole_low, whole_high, (500, 3))
    points[:8] = [[(whole_low, whole_high)[k >> i & 1][i] for i in range(3)] for k in range(8)]
    x = np.clip(points.astype(np.float32), whole_low.astype(np.float32), whole_high.astype(np.float32))
    held = np.zeros(len(x), dtype=bool)
    for part in found.parts:
        ((part_low, part_high),) = ends(part.property)
        assert (part_low >= whole_low).all()
        assert (part_high <= whole_high).all()
        held |= ((x >= part_low) & (x <= part_high)).all(axis=1)
    outputs = RUN(x)
    assert not any(violates(prop, a, b) for a, b in zip(x[~held], outputs[~held], strict=True))
    assert found.settled + sum(p.share for p in found.parts) == pytest.approx(1.0)
    assert (
        len(found.parts) >= least or not found.parts or found.settled > 0 or (whole_low == whole_high).any()
    )


def test_a_part_is_the_property_that_its_text_says():
    prop = at_most(round(TOP - 0.2, 6), 3, "p")
    for part in cut(PROGRAM, prop, 4).parts:
        read = parse_property(part.property.text, "p", source="p")
        assert read.cases == part.property.cases


def answer(verdict, **more):
    return {"verdict": verdict, "reason": "because", **more}


WITNESS = {"input_hex": [(0.5).hex()] * 3, "output": [100.0]}
INSIDE = answer("violated", witness=WITNESS)
BESIDE = answer("violated", witness={**WITNESS, "input_hex": [(9.5).hex()] * 3})


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([answer("proved"), answer("proved")], Proved),
        ([answer("proved"), answer("holds-real")], Proved),
        ([answer("proved"), answer("unknown")], Unknown),
        ([answer("proved"), None], Unknown),
        ([answer("unknown"), INSIDE], Violated),
        ([None, INSIDE], Violated),
        ([answer("proved"), BESIDE], Unknown),
        ([BESIDE, INSIDE], Violated),
    ],
)
def test_the_join_says_no_more_than_its_parts(answers, kind):
    prop = at_most(1.0, 3, "p")
    found = Cut(tuple(Part(prop, 0, 0.5) for _ in answers), 0.0, 1)
    assert type(joined(prop, found, answers)) is kind


def test_a_part_that_is_refused_is_no_verdict():
    prop = at_most(1.0, 3, "p")
    with pytest.raises(CampaignError, match="because"):
        joined(prop, Cut((Part(prop, 0, 1.0),), 0.0, 1), [answer("error")])


def test_nothing_open_is_proved():
    assert isinstance(joined(at_most(1.0, 3, "p"), Cut((), 1.0, 3), []), Proved)


@pytest.mark.parametrize(("above", "kind"), [(0.3, Proved), (-0.3, Violated)])
def test_split_says_what_verify_says(monkeypatch, above, kind):
    monkeypatch.setattr("sutura.campaign.split.LOOK", 1e-6)  # else a look decides these
    net = mlp((6, 30, 30, 1), 1)
    loaded, prop = load(net), at_most(round(most(net, 6) + above, 6), 6, "p")
    program = under(lower(loaded.network), EXECUTIONS["float32-any-order"], {"Gemm", "Relu"})
    assert len(cut(program, prop, 4).parts) == 4
    whole = verify(loaded, prop, VerifyConfig(workers=1))
    with Pool(2) as pool:
        found = verify_split((net, "n.onnx"), prop, pool, VerifyConfig(timeout=60, workers=1), parts=4)
    assert type(whole.verdict) is type(found.verdict) is kind
    if kind is Proved:
        assert found.verdict == whole.verdict
        assert (found.account.proved_share, found.account.bound) == (1.0, None)
    else:
        witness = found.verdict.witness
        assert violates(prop, witness.input, witness.output)
        assert runner(open_session(net))(witness.input[None])[0] == witness.output


def test_two_boxes_are_cut_each():
    one, two = (at_most(round(TOP - 0.3, 6), 3, "p", scale).cases[0] for scale in (1.0, 0.5))
    prop = replace(at_most(1, 3, "p"), cases=(one, two), text=write(3, 1, (one, two)))
    found = cut(PROGRAM, prop, 3)
    assert {part.case for part in found.parts} == {0, 1}
    assert found.settled + sum(p.share for p in found.parts) == pytest.approx(2.0)


def test_the_limit_is_one_for_all_parts():
    prop = at_most(round(most(BIG, 10) + 0.8, 6), 10, "h")
    with Serial() as serial:
        found = verify_split((BIG, "h.onnx"), prop, serial, VerifyConfig(timeout=3.0, workers=1), parts=8)
    assert isinstance(found.verdict, Unknown)
    assert "parts are undecided" in found.verdict.reason
    assert found.account.seconds < 12.0


def test_many_inputs_are_refused():
    net = mlp((12, 3, 1), 0)
    with Serial() as serial, pytest.raises(CampaignError, match="12 varying inputs; --split serves up to 10"):
        verify_split((net, "n.onnx"), at_most(1, 12, "p"), serial, VerifyConfig(), parts=2)


def test_the_command_splits_and_refuses_what_does_not_go_together(tmp_path):
    net, prop = tmp_path / "n.onnx", tmp_path / "p.vnnlib"
    net.write_bytes(NET)
    prop.write_bytes(at_most(round(TOP + 0.5, 6), 3, "p").text)

    def say(*more):
        return CliRunner().invoke(main, ["verify", *map(str, more)])

    told = say(net, prop, "--split", 4, "--workers", 2, "--json")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["properties"][0]["verdict"] == "proved"
    for arguments, words in (
        ((net, prop, "--cluster", "tcp://127.0.0.1:9"), "--cluster takes --split N"),
        ((net, prop, "--split", 2, "--journal", tmp_path / "j"), "neither goes with --journal"),
        ((prop, "--network", f"N={net}", "--split", 2), "--split does not go with --network"),
        ((prop, "--network", f"N={net}", "--sarif", tmp_path / "s"), "--sarif does not go with --network"),
    ):
        found = say(*arguments)
        assert (found.exit_code, found.stdout) == (2, "")
        assert words in found.stderr
