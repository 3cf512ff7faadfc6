"""The guard: what it hands on is right, what it does not hand on is told, and nothing gets past it."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import sutura
from sutura.errors import GuardError, MismatchError, NetworkError, OutputError
from sutura.network.run import Session, open_session, run
from sutura.property.read import read_property
from sutura.property.spec import violates
from sutura.runtime import guard as guard_file
from sutura.runtime.guard import NOT_ASKED, Guard, GuardConfig

FAST = GuardConfig(check=False)


def unsafe_output(files, point):
    """An output that is unsafe for this input."""
    properties = [read_property(p) for p in files.properties]
    draw = np.random.default_rng(1)
    for y in draw.integers(-3, 4, (10_000, properties[0].outputs)).astype(np.float32):
        if any(violates(p, point, y) for p in properties):
            return y
    raise AssertionError("no unsafe output found")


def guarded(files, config=FAST, **options):
    return Guard(files.network, files.certificate, config=config, **options)


def replaced(guard, monkeypatch, give):
    """Let the guard see `give(x)` as what ONNX Runtime returned."""
    monkeypatch.setattr(guard_file, "run", lambda session, x: give(x))
    return guard


def test_outputs_are_those_of_the_network_bit_for_bit(files, boxes):
    guard = Guard(files.network, files.certificate)
    session = open_session(files.network.read_bytes(), gated=True, optimise=False)
    for batch in (boxes, boxes[:1], boxes[:7]):
        found = guard.answer(batch)
        assert found.outputs.tobytes() == run(session, batch).tobytes()
        assert found.fallback.tolist() == [False] * len(batch)
        assert found.alarms == ()
    tally = guard.tally
    assert (tally.calls, tally.samples, tally.inside) == (3, len(boxes) + 8, len(boxes) + 8)
    assert sum(tally.gate_rows) == tally.samples
    assert min(tally.gate_rows) > 0
    assert tally.breaches == 0
    assert not guard.breached
    assert guard.ready
    assert sutura.Guard is Guard


def test_the_file_runs_as_it_is_written_unless_asked(files):
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    for optimise, level in ((False, levels.ORT_DISABLE_ALL), (True, levels.ORT_ENABLE_ALL)):
        config = GuardConfig(check=False) if not optimise else GuardConfig(check=False, optimise=True)
        options = guarded(files, config)._session.runtime.get_session_options()
        assert options.graph_optimization_level == level


@pytest.mark.parametrize("count", [1, 3])
def test_seconds_of_network_and_guard_are_told_apart(files, boxes, monkeypatch, count):
    """By a clock that goes on by one at every look: two looks at the run, one before and one after all."""
    looks = iter(range(100))
    monkeypatch.setattr(guard_file.time, "perf_counter", lambda: float(next(looks)))
    guard = guarded(files)
    for calls in (1, 2):
        guard(boxes[:count])
        assert (guard.tally.inference_seconds, guard.tally.guard_seconds) == (calls, 2 * calls)


def test_single_samples_and_batches_are_told_the_same(files, boxes):
    one, many = guarded(files), guarded(files)
    points = np.concatenate([boxes[::40], boxes[::40] + np.float32(3)])
    outputs = np.concatenate([one(p[None]) for p in points])
    whole = many(points)
    assert np.allclose(outputs, whole, rtol=1e-5, atol=1e-5)
    a, b = one.tally, many.tally
    assert (a.samples, a.inside, a.gate_rows, a.breaches) == (b.samples, b.inside, b.gate_rows, b.breaches)
    assert 0 < a.inside < a.samples


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_never_reach_the_network(files, boxes, safe, monkeypatch, value, position):
    guard = guarded(files, fallback=safe)
    seen = []
    real = guard_file.run
    monkeypatch.setattr(guard_file, "run", lambda session, x: seen.append(x) or real(session, x))
    x = boxes[:3].copy()
    x[position, position] = value
    found = guard.answer(x)
    assert found.fallback.tolist() == [at == position for at in range(3)]
    assert found.outputs[position].tolist() == safe.tolist()
    assert found.rows[position] == NOT_ASKED
    assert np.isfinite(np.concatenate(seen)).all()
    assert len(seen[0]) == 2
    one = guard.answer(x[position : position + 1])
    assert one.outputs[0].tolist() == safe.tolist()
    assert len(seen) == 1
    assert guard.tally.alarms["input_not_finite"] == 2
    assert not guard.breached
    assert [a.cause for a in one.alarms] == ["input_not_finite"]
    assert one.alarms[0].output is None


def test_inputs_outside_are_served_or_not_as_asked(files, boxes, safe):
    far = boxes[:2] + np.float32(100)
    assert not guarded(files).answer(far).fallback.any()
    strict = guarded(files, GuardConfig(check=False, inputs="certified"), fallback=safe)
    for batch in (far, far[:1]):
        found = strict.answer(batch)
        assert found.fallback.all()
        assert (found.outputs == safe).all()
        assert {a.cause for a in found.alarms} == {"input_outside"}
    assert not strict.breached
    assert not strict.answer(boxes[:5]).fallback.any()
    mixed = strict.answer(np.concatenate([boxes[:2], far]))
    assert mixed.fallback.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3), np.float64),
        np.zeros((1, 3), np.int32),
        np.zeros(3, np.float32),
        np.zeros((1, 4), np.float32),
        np.zeros((0, 3), np.float32),
        np.float32(1),
        [[0.0, 0.0, 0.0]],
        None,
    ],
)
def test_other_shapes_and_types_are_refused(files, x):
    guard = guarded(files)
    with pytest.raises(MismatchError, match="float32 in batches of 3"):
        guard(x)
    assert (guard.tally.calls, guard.tally.refused_calls, guard.tally.samples) == (1, 1, 0)


@pytest.mark.parametrize("count", [1, 4])
def test_an_unsafe_output_is_never_handed_on(files, boxes, safe, monkeypatch, tmp_path, count):
    x = boxes[:count]
    bad = unsafe_output(files, x[count - 1])
    good = guarded(files)(x)

    def give(given):
        found = good[: len(given)].copy()
        found[-1] = bad
        return found

    raising = guarded(files)
    log = tmp_path / "breaches.jsonl"
    quiet = guarded(files, GuardConfig(check=False, log=log), fallback=safe)
    replaced(raising, monkeypatch, give)
    with pytest.raises(GuardError, match=r"sample \d of \d is not handed on: the output breaks") as caught:
        raising(x)
    assert "\n" not in str(caught.value)
    found = quiet.answer(x)
    assert found.fallback.tolist() == [False] * (count - 1) + [True]
    assert found.outputs[-1].tolist() == safe.tolist()
    assert found.outputs[:-1].tobytes() == good[:-1].tobytes()
    (alarm,) = found.alarms
    assert alarm.breach
    assert alarm.property in ("no_climb", "alert")
    assert alarm.row == quiet._rows(x)[-1]
    assert quiet.breached
    assert quiet.breaches == found.alarms
    assert quiet.ready
    (line,) = log.read_text().splitlines()
    told = json.loads(line)
    assert bytes.fromhex("".join(told["input"])) == x[-1].astype(">f4").tobytes()
    assert bytes.fromhex("".join(told["output"])) == bad.astype(">f4").tobytes()
    assert told["cause"] == "output_unsafe"
    assert quiet.tally.alarms["output_unsafe"] == quiet.tally.breaches == 1
    assert quiet.tally.unlogged == raising.tally.unlogged == 0
    later = guarded(files, GuardConfig(check=False, log=log, stop=True), fallback=safe)
    assert later.breached
    assert not later.ready
    assert later.document()["earlier_breaches"] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_an_output_that_is_not_finite_is_never_handed_on(files, boxes, safe, monkeypatch, value, count):
    guard = guarded(files, fallback=safe)
    good = guarded(files)(boxes[:count])
    good[0, -1] = value
    replaced(guard, monkeypatch, lambda x: good.copy())
    found = guard.answer(boxes[:count])
    assert found.fallback.tolist() == [True] + [False] * (count - 1)
    assert found.alarms[0].cause == "output_not_finite"
    assert guard.breached
    outside = guard.answer(boxes[:count] + np.float32(100))
    assert outside.fallback[0]
    assert not outside.alarms[0].breach


def test_unsafe_outputs_for_inputs_in_no_box_are_no_ones_business(files, boxes, monkeypatch):
    guard = guarded(files)
    bad = unsafe_output(files, boxes[0])
    replaced(guard, monkeypatch, lambda x: np.repeat(bad[None], len(x), axis=0))
    far = boxes[:2] + np.float32(100)
    assert (guard(far) == bad).all()
    assert (guard(far[:1]) == bad).all()


def failing(x):
    raise NetworkError("no")


@pytest.mark.parametrize(
    "give",
    [
        failing,
        lambda x: np.zeros((len(x), 5), np.float64),
        lambda x: np.zeros((len(x), 4), np.float32),
        lambda x: np.zeros((len(x) + 1, 5), np.float32),
    ],
)
def test_a_runtime_that_fails_is_a_breach(files, boxes, safe, monkeypatch, give):
    guard = replaced(guarded(files, fallback=safe), monkeypatch, give)
    for count in (1, 3):
        found = guard.answer(boxes[:count])
        assert (found.outputs == safe).all()
        assert [a.cause for a in found.alarms] == ["inference_failed"] * count
    assert guard.tally.breaches == 4


def test_a_breach_stops_the_network_where_asked(files, boxes, safe, monkeypatch):
    guard = guarded(files, GuardConfig(check=False, stop=True), fallback=safe)
    with monkeypatch.context() as patched:
        replaced(guard, patched, failing)
        guard(boxes[:1])
    assert not guard.ready
    found = guard.answer(boxes[:2])
    assert [a.cause for a in found.alarms] == ["stopped"] * 2
    assert (found.rows == NOT_ASKED).all()
    one = guard.answer(boxes[:1])
    assert [a.cause for a in one.alarms] == ["stopped"]
    assert one.alarms[0].document()["row"] == -1
    assert guard.tally.breaches == 1
    assert guard.tally.alarms["stopped"] == 3


def test_a_function_may_answer_and_is_checked_itself(files, boxes, safe, monkeypatch):
    bad = unsafe_output(files, boxes[0])
    given = []
    answers = {"y": safe}

    def answer(alarm):
        given.append(alarm)
        return answers["y"]

    guard = replaced(guarded(files, fallback=answer), monkeypatch, lambda x: bad[None].copy())
    assert guard(boxes[:1])[0].tolist() == safe.tolist()
    assert given[0].output.tolist() == bad.tolist()
    for answers["y"], words in (
        (bad, "own output is unsafe"),
        (safe * np.float32(np.nan), "own output is not finite"),
        ([1e300] * 5, "own output is not finite"),
        (safe[:-1], "where 5 numbers are needed"),
        ("none", "where 5 numbers are needed"),
    ):
        with pytest.raises(GuardError, match=words):
            guard(boxes[:1])


@pytest.mark.parametrize(
    ("fallback", "words"),
    [
        ([0.0, 0.0], "has 2 numbers"),
        ([np.nan] * 5, "not finite"),
        ("rise", "'rise' is unknown"),
        (object(), "is unknown"),
    ],
)
def test_a_fallback_that_cannot_serve_is_refused(files, fallback, words):
    with pytest.raises(MismatchError, match=words):
        guarded(files, fallback=fallback)


def test_a_safe_output_that_is_not_is_refused(files, boxes):
    with pytest.raises(MismatchError, match="the safe output is unsafe in property"):
        guarded(files, fallback=unsafe_output(files, boxes[0]))


def flipped(network, draw):
    """The network with one of the higher bits of one of its weights turned round."""
    model = onnx.load_from_string(network)
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    tensor = tensors[draw.integers(len(tensors))]
    bits = numpy_helper.to_array(tensor).copy().view(np.uint32).reshape(-1)
    bits[draw.integers(bits.size)] ^= np.uint32(1) << np.uint32(draw.integers(26, 32))
    array = bits.view(np.float32).reshape(tuple(tensor.dims))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model.SerializeToString()


def assert_safe(files, x, y):
    properties = [read_property(p) for p in files.properties]
    assert np.isfinite(y).all()
    assert not any(violates(p, a, b) for p in properties for a, b in zip(x, y, strict=True))


def test_flipped_bits_in_weights_are_caught_every_time(files, boxes, safe, monkeypatch):
    """After the start a bit of the weights in memory turns round: what is handed on stays safe."""
    draw = np.random.default_rng(3)
    properties = [read_property(p) for p in files.properties]
    network = files.network.read_bytes()
    caught = 0
    x = boxes[::16]
    for _ in range(50):
        guard = guarded(files, fallback=safe)
        guard._session = open_session(flipped(network, draw), gated=True, optimise=False)
        raw = run(guard._session, x)
        wrong = ~np.isfinite(raw).all(axis=1)
        wrong |= [any(violates(p, a, b) for p in properties) for a, b in zip(x, raw, strict=True)]
        found = guard.answer(x)
        assert found.fallback.tolist() == wrong.tolist()
        assert_safe(files, x, found.outputs)
        assert guard.tally.breaches == wrong.sum()
        caught += int(wrong.any())
    assert caught >= 4


def test_flipped_bits_in_outputs_are_caught_every_time(files, boxes, safe, monkeypatch):
    draw = np.random.default_rng(4)
    guard = guarded(files, fallback=safe)
    properties = [read_property(p) for p in files.properties]
    good = run(guard._session, boxes)
    caught = 0
    for at in draw.integers(len(boxes), size=600):
        y = good[at : at + 1].copy()
        y.view(np.uint32)[0, draw.integers(y.shape[1])] ^= np.uint32(1) << np.uint32(draw.integers(32))
        replaced(guard, monkeypatch, lambda x, y=y: y)
        x = boxes[at : at + 1]
        wrong = not np.isfinite(y).all() or any(violates(p, x[0], y[0]) for p in properties)
        found = guard.answer(x)
        assert bool(found.fallback[0]) == wrong
        assert_safe(files, x, found.outputs)
        caught += wrong
    assert caught >= 20
    assert guard.tally.breaches == caught


def test_files_that_do_not_belong_together_are_refused(files, tmp_path):
    network, certificate = files.network.read_bytes(), files.certificate.read_bytes()
    with pytest.raises(GuardError, match=r"is not the one of .*SHA-256 differs"):
        Guard(network[:-1] + b"\1", certificate, files.properties)
    with pytest.raises(GuardError, match=r"digest does not match|no JSON|canonical"):
        Guard(network, certificate.replace(b'"leaves":', b'"leaves":1', 1), files.properties)
    with pytest.raises(GuardError, match="property 'alert' of the certificate is not among"):
        Guard(network, certificate, files.properties[:1])
    other = tmp_path / "alert.vnnlib"
    other.write_bytes(files.properties[1].read_bytes() + b"\n")
    with pytest.raises(GuardError, match="'alert'"):
        Guard(network, certificate, [files.properties[0], other])
    with pytest.raises(NetworkError, match="cannot read"):
        Guard(tmp_path / "no.onnx", certificate)
    (tmp_path / "fixed.onnx").write_bytes(network)
    with pytest.raises(GuardError, match="'no_climb' of the certificate is not among"):
        Guard(tmp_path / "fixed.onnx", certificate)


def test_properties_are_found_beside_the_certificate(files, tmp_path):
    (tmp_path / "fixed.onnx").write_bytes(files.network.read_bytes())
    (tmp_path / "no_climb.vnnlib").write_bytes(b"something else")
    with pytest.raises(sutura.SuturaError):
        Guard(tmp_path / "fixed.onnx", tmp_path / "none.cert.json", config=FAST)
    (tmp_path / "no_climb.vnnlib").unlink()
    found = Guard(tmp_path / "fixed.onnx", files.certificate, config=FAST)
    assert [p.name for p in found.properties] == ["no_climb", "alert"]
    given = Guard(tmp_path / "fixed.onnx", files.certificate, files.properties[::-1], config=FAST)
    assert [p.name for p in given.properties] == ["no_climb", "alert"]


def told_of(files, folder, text):
    """Files in which the certificate, unproved, speaks of one other property."""
    claim = json.loads(files.certificate.read_bytes())
    del claim["digest"]
    claim["properties"] = [{"name": "other", "sha256": hashlib.sha256(text).hexdigest()}]
    claim["digest"] = hashlib.sha256(canonical(claim)).hexdigest()
    place = folder / "other.cert.json"
    place.write_bytes(canonical(claim))
    (folder / "other.vnnlib").write_bytes(text)
    return place


def canonical(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def about(inputs, outputs, unsafe):
    names = [
        f"(declare-const {kind}_{at} Real)" for kind, n in (("X", inputs), ("Y", outputs)) for at in range(n)
    ]
    sides = [f"(assert (>= X_{at} -1e9))(assert (<= X_{at} 1e9))" for at in range(inputs)]
    return "".join([*names, *sides, f"(assert {unsafe})"]).encode()


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 5), (4, 5), (3, 4), (3, 6)])
def test_properties_of_another_size_are_refused(files, tmp_path, inputs, outputs):
    certificate = told_of(files, tmp_path, about(inputs, outputs, "(<= Y_0 -1e9)"))
    with pytest.raises(MismatchError, match=f"speaks of {inputs} inputs and {outputs} outputs"):
        Guard(files.network, certificate, config=FAST)


@pytest.mark.parametrize("bound", ["-1e9", "1e9"])
def test_sums_of_outputs_are_decided_too(files, boxes, tmp_path, safe, bound):
    certificate = told_of(files, tmp_path, about(3, 5, f"(<= (+ Y_0 Y_1) {bound})"))
    guard = Guard(files.network, certificate, config=FAST, fallback=lambda alarm: [1e9] * 5)
    for count in (1, 3):
        assert guard.answer(boxes[:count]).fallback.all() == (bound == "1e9")


def test_a_refused_certificate_is_refused(files, monkeypatch):
    from sutura.runtime import binding

    real = binding.check
    monkeypatch.setattr(binding, "check", lambda *given: real(given[0], given[1][:1], given[2]))
    with pytest.raises(GuardError, match="the checker refuses"):
        Guard(files.network, files.certificate)


def test_a_log_that_cannot_be_written_is_told(files, boxes, safe, monkeypatch, tmp_path):
    with pytest.raises(OutputError, match="cannot write the breach log"):
        guarded(files, GuardConfig(check=False, log=tmp_path / "none" / "log"))
    guard = guarded(files, GuardConfig(check=False, log=tmp_path / "log"), fallback=safe)
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    replaced(guard, monkeypatch, failing)
    assert guard(boxes[:1])[0].tolist() == safe.tolist()
    assert guard.tally.unlogged == 1
    assert guard.breached


def test_only_so_many_breaches_are_kept_and_all_are_counted(files, boxes, safe, monkeypatch):
    monkeypatch.setattr(guard_file, "KEPT", 5)
    guard = replaced(guarded(files, fallback=safe), monkeypatch, failing)
    guard(boxes[:4])
    first = guard.breaches
    guard(boxes[4:8])
    assert guard.breaches[:4] == first
    assert len(guard.breaches) == 5
    assert guard.tally.breaches == 8


def test_threads_lose_no_count(files, boxes):
    guard = guarded(files)

    def work():
        for at in range(50):
            guard(boxes[at : at + 1])
            guard(boxes[at : at + 3])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally = guard.tally
    assert (tally.calls, tally.samples, sum(tally.gate_rows)) == (400, 800, 800)


def test_the_document_is_json_and_complete(files, boxes):
    guard = guarded(files)
    guard(boxes[:3])
    told = json.loads(json.dumps(guard.document(), allow_nan=False))
    assert (told["schema"], told["version"]) == ("sutura/guard", 1)
    assert told["properties"] == ["no_climb", "alert"]
    assert told["samples"] == 3
    assert sum(told["gate_rows"]) == 3
    assert told["alarms"] == dict.fromkeys(told["alarms"], 0)
    assert (told["ready"], told["breached"]) == (True, False)


def test_a_session_is_not_reached_by_the_unguarded(files):
    assert isinstance(guarded(files)._session, Session)
