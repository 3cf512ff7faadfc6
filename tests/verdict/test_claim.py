"""What a verdict claims, what that rests on, and that whatever goes wrong ends in Unknown."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

import numpy as np
import pytest
from planted import ask, at_least, case, dense, loaded, prop

from sutura.bounds import crown, interval
from sutura.certificate.claim import ASSUMPTIONS, LEVELS, certified, claim
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session, run
from sutura.verdict import narrow
from sutura.verdict.outcome import Proved, Unknown
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

SAFE = case([-1, -1], [1, 1], (at_least(0, 100),))


def network():
    return loaded(2, dense([[1, 2], [3, -1], [0.5, 1]], [0, 1, -1]), ops.Relu(), dense([[1, 1, -1]], [0.25]))


def asked(net, wanted, **how):
    config = VerifyConfig(timeout=10.0, workers=1, **how)
    return verify(net, prop(net.network.input_size, net.network.output_size, wanted), config).verdict


def test_the_tables_speak_of_each_other():
    for profile in ("reals", "float32-any-order", "float32-chopping", "tf32"):
        found = claim(profile, ["Gemm", "Sigmoid", "Exp"])
        assert found.level in LEVELS and set(found.assumes) <= set(ASSUMPTIONS)
        assert found.meaning and all(found.assumptions)
        assert certified(found).level == "CERTIFIED" and certified(found).assumes == found.assumes


@pytest.mark.parametrize(
    ("profile", "operator", "level", "word"),
    [
        ("float32-any-order", "Relu", "PROVED", "binary32-nearest"),
        ("float32-any-order", "Tanh", "PROVED@runtime", "curves-within-4e-7"),
        ("tf32", "Relu", "PROVED@runtime", "tf32-inputs"),
        ("reals", "Relu", "HOLDS-REAL", "real-arithmetic"),
    ],
)
def test_levels(profile, operator, level, word):
    found = claim(profile, [operator])
    assert found.level == level
    assert word in found.assumes


@pytest.mark.parametrize(
    ("profile", "level"),
    [("float32-any-order", "PROVED"), ("tf32", "PROVED@runtime"), ("reals", "HOLDS-REAL")],
)
def test_a_verdict_carries_its_claim(profile, level):
    verdict = asked(network(), SAFE, profile=profile)
    assert isinstance(verdict, Proved)
    assert verdict.claim.level == level


def test_a_named_runtime_stands_beside_what_was_measured_on_it():
    found = claim("float32-any-order", ["Sigmoid"], "ONNX Runtime 1.0")
    named = [text.endswith("(as measured on ONNX Runtime 1.0)") for text in found.assumptions]
    assert named == [False] * 4 + [True]


def test_a_sigmoid_may_exceed_one_so_that_it_is_not_proved_to_stay_below():
    # Exactly, sigmoid <= 1 everywhere; runtimes compute 1 + 2^-23 in places.
    net = loaded(1, ops.Sigmoid())
    above_one = case([17], [18], (at_least(0, 1, strict=True),))
    assert not isinstance(asked(net, above_one), Proved)
    clear = asked(net, case([17], [18], (at_least(0, "1.0000005"),)))
    assert isinstance(clear, Proved) and clear.claim.level == "PROVED@runtime"
    point = np.array([[17.482065]], np.float32)
    executed = run(open_session(write_onnx(net.network)), point)[0, 0]
    assert executed <= np.float32(1.0) + np.float32(2.0**-22)


# ---- fault injection: nothing that goes wrong is a proof ----


def test_not_a_number_is_no_proof(monkeypatch):
    true = crown.backward
    monkeypatch.setattr(crown, "backward", lambda *a: tuple(np.full_like(part, np.nan) for part in true(*a)))
    monkeypatch.setattr(interval, "least", lambda rows, *_: np.full(rows.shape[:2], np.nan))
    assert isinstance(ask(network(), SAFE, timeout=0.5).verdict, Unknown)


def test_infinite_weights_and_overflow_are_no_proof():
    net = loaded(1, dense([[np.inf]], [0]))
    assert not isinstance(ask(net, case([0], [1], (at_least(0, 1),)), timeout=0.5).verdict, Proved)
    huge = loaded(1, dense([[3e38], [3e38]], [0, 0]), ops.Relu(), dense([[1, -1]], [0]))
    assert not isinstance(ask(huge, case([0], [1], (at_least(0, 1),)), timeout=0.5).verdict, Proved)


HARD = case([-1, -1], [1, 1], (at_least(0, "5.751"),))
"""True by a thousandth: one bound of the whole box does not show it."""


def test_the_hard_question_needs_a_search():
    outcome = ask(network(), HARD)
    assert isinstance(outcome.verdict, Proved) and outcome.account.boxes > 1


@pytest.mark.parametrize("place", [(narrow, "crown"), (narrow, "lower_planes")])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "the search stopped: out of memory"),
        (FloatingPointError("overflow"), "the search stopped: FloatingPointError: overflow"),
        (BrokenExecutor("a worker died"), "the search stopped: BrokenExecutor: a worker died"),
        (RecursionError("too deep"), "the search stopped: RecursionError: too deep"),
    ],
)
def test_a_search_that_breaks_is_unknown_with_its_reason(monkeypatch, place, error, reason):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(*place, fails)
    verdict = ask(network(), HARD, timeout=5.0).verdict
    assert isinstance(verdict, Unknown)
    assert verdict.reason == reason


def test_crossed_bounds_are_no_proof(monkeypatch):
    true = narrow.crown

    def crossed(*arguments, **named):
        found = true(*arguments, **named)
        return crown.Bounds(found.high, found.low, found.errors, found.lines)

    monkeypatch.setattr(narrow, "crown", crossed)
    assert not isinstance(ask(network(), SAFE, timeout=0.5).verdict, Proved)


def test_no_time_and_no_memory_say_so():
    late = ask(network(), HARD, timeout=1e-9).verdict
    assert isinstance(late, Unknown) and late.reason.startswith("timed out")
    wanted = prop(2, 1, HARD)
    full = verify(network(), wanted, VerifyConfig(timeout=5.0, workers=1, waiting=0)).verdict
    assert isinstance(full, Unknown) and "memory limit" in full.reason


def test_an_unknown_operator_is_refused(tmp_path):
    import onnx

    from sutura.network.read import load

    data = onnx.load_from_string(write_onnx(network().network))
    data.graph.node[1].op_type = "Erf"
    (tmp_path / "odd.onnx").write_bytes(data.SerializeToString())
    with pytest.raises(NetworkError):
        load(tmp_path / "odd.onnx")
