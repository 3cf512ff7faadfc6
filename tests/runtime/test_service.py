"""The service over HTTP: the protocol, its limits, and a real server that stops when told to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

httpx = pytest.importorskip("httpx2")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from click.testing import CliRunner  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from sutura.cli.app import main  # noqa: E402
from sutura.errors import NetworkError, SuturaError  # noqa: E402
from sutura.runtime import guard as guard_file  # noqa: E402
from sutura.runtime import service as service_file  # noqa: E402
from sutura.runtime.guard import Guard, GuardConfig  # noqa: E402
from sutura.runtime.inference_protocol import parse_request  # noqa: E402
from sutura.runtime.service import ServiceConfig, service  # noqa: E402

INFER = "/v2/models/vertical/infer"


@pytest.fixture
def guard(files):
    return Guard(files.network, files.certificate, config=GuardConfig(check=False))


@pytest.fixture
def client(guard):
    with TestClient(service(guard, ServiceConfig("vertical", "7", 10_000))) as found:
        yield found


def asked(guard, x, **more):
    tensor = {"name": guard.names[0], "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
    return {"inputs": [tensor], **more}


def wrong(body, **changes):
    body["inputs"][0].update(changes)
    return body


def test_inference_gives_what_the_guard_gives(client, guard, boxes):
    x = boxes[:4]
    for data in (x.tolist(), x.reshape(-1).tolist()):
        body = wrong(asked(guard, x, id="q1"), data=data)
        said = client.post(INFER, json=body)
        assert said.status_code == 200
        told = said.json()
        assert (told["model_name"], told["model_version"], told["id"]) == ("vertical", "7", "q1")
        assert told["parameters"] == {"fallbacks": 0, "fallback_samples": ""}
        (tensor,) = told["outputs"]
        assert (tensor["name"], tensor["datatype"], tensor["shape"]) == (guard.names[1], "FP32", [4, 5])
        assert np.array(tensor["data"], np.float32).tobytes() == guard(x).tobytes()
    named = client.post("/v2/models/vertical/versions/7/infer", json=asked(guard, x, outputs=[{"name": "y"}]))
    assert named.status_code in (200, 400)


def test_metadata_and_health(client, guard):
    assert client.get("/v2").json()["name"] == "sutura"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for address in ("/v2/models/vertical", "/v2/models/vertical/versions/7"):
        told = client.get(address).json()
        assert told["versions"] == ["7"]
        assert told["inputs"] == [{"name": guard.names[0], "datatype": "FP32", "shape": [-1, 3]}]
        assert client.get(f"{address}/ready").status_code == 200
    for address in ("/v2/models/other", "/v2/models/vertical/versions/8", "/v2/models/other/ready", "/else"):
        said = client.get(address)
        assert said.status_code == 404
        assert set(said.json()) == {"error"}
    assert client.post("/v2/models/other/infer", json={}).status_code == 404
    assert client.get(INFER).status_code == 405


def test_metrics_are_prometheus_text_and_counters_json(client, guard, boxes):
    from prometheus_client.parser import text_string_to_metric_families

    client.post(INFER, json=asked(guard, boxes[:9]))
    said = client.get("/metrics")
    assert said.headers["content-type"].startswith("text/plain")
    samples = [s for family in text_string_to_metric_families(said.text) for s in family.samples]
    found = {(s.name, *s.labels.values()): s.value for s in samples}
    assert found["sutura_guard_samples_total",] == 9
    assert found["sutura_guard_ready",] == 1
    assert found["sutura_guard_breached",] == 0
    assert found["sutura_guard_alarms_total", "output_unsafe"] == 0
    told = client.get("/guard").json()
    rows = [found["sutura_guard_gate_total", str(r)] for r in range(len(told["gate_rows"]))]
    assert rows == told["gate_rows"]
    assert sum(rows) == told["samples"] == 9


BAD = {
    "no JSON": (lambda b: b"{", "not JSON"),
    "not an object": (lambda b: b"[]", "JSON object"),
    "NaN": (lambda b: json.dumps(b).encode().replace(b'"data": [[', b'"data": [[NaN, '), "not JSON"),
    "bytes": (lambda b: b"\xff\xfe", "not JSON"),
    "deep": (lambda b: b"[" * 9000, "not JSON"),
    "many digits": (lambda b: wrong(b, data=[10**4000, 0, 0]), "float32 range"),
    "no inputs": (lambda b: {}, "one tensor"),
    "two inputs": (lambda b: {"inputs": b["inputs"] * 2}, "one tensor"),
    "inputs are text": (lambda b: {"inputs": "x"}, "one tensor"),
    "other name": (lambda b: wrong(b, name="z"), "one tensor"),
    "other outputs": (lambda b: {**b, "outputs": [{"name": "none"}]}, "one tensor"),
    "FP64": (lambda b: wrong(b, datatype="FP64"), "'FP64'"),
    "no shape": (lambda b: wrong(b, shape=None), "batch"),
    "other shape": (lambda b: wrong(b, shape=[1, 4]), "batch"),
    "empty batch": (lambda b: wrong(b, shape=[0, 3], data=[]), "batch"),
    "negative batch": (lambda b: wrong(b, shape=[-1, 3]), "batch"),
    "text in shape": (lambda b: wrong(b, shape=["1", 3]), "batch"),
    "true in shape": (lambda b: wrong(b, shape=[True, 3]), "batch"),
    "huge batch": (lambda b: wrong(b, shape=[10**30, 3]), "asks for"),
    "too few": (lambda b: wrong(b, data=[1.0]), "1 numbers"),
    "text for data": (lambda b: wrong(b, data="1,2,3"), "list of numbers"),
    "text in data": (lambda b: wrong(b, data=["1", 2, 3]), "no number"),
    "true in data": (lambda b: wrong(b, data=[True, 2, 3]), "no number"),
    "null in data": (lambda b: wrong(b, data=[None, 2, 3]), "no number"),
    "ragged": (lambda b: wrong(b, data=[[1, 2, 3], [1, 2]], shape=[2, 3]), "nested"),
    "nested too deep": (lambda b: wrong(b, data=[[[1], 2, 3]]), "no number"),
    "long id": (lambda b: {**b, "id": "i" * 300}, "id"),
    "number as id": (lambda b: {**b, "id": 3}, "id"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_requests_are_one_line(client, guard, boxes, name):
    change, words = BAD[name]
    body = change(asked(guard, boxes[:1]))
    said = client.post(INFER, content=body) if isinstance(body, bytes) else client.post(INFER, json=body)
    assert said.status_code == 400, said.text
    assert words in said.json()["error"]
    assert "\n" not in said.json()["error"]
    assert len(said.text) < 400


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "outputs", "id", "shape", "data", "datatype", "name"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_request_or_refused(value):
    class Any:
        input_shape = (3,)
        names = ("x", "y")

    try:
        parse_request(json.dumps(value).encode(), Any())
    except SuturaError as error:
        assert "\n" not in str(error)


def test_bodies_are_limited_also_without_a_length(client, guard, boxes):
    big = asked(guard, np.repeat(boxes[:1], 2000, axis=0))
    for content in (json.dumps(big).encode(), iter([b" " * 6000] * 3)):
        said = client.post(INFER, content=content)
        assert said.status_code == 413
        assert "10,000 bytes" in said.json()["error"]


def test_a_body_that_never_arrives_is_given_up(guard, monkeypatch):
    import asyncio

    monkeypatch.setattr(service_file, "SLOWEST_BODY", 0.05)

    async def stuck():
        await asyncio.sleep(60)
        yield b"{}"

    async def ask():
        transport = httpx.ASGITransport(service(guard))
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as http:
            return await http.post("/v2/models/model/infer", content=stuck())

    assert asyncio.run(ask()).status_code == 408


def failing(session, x):
    raise NetworkError("no")


def test_what_the_guard_does_not_hand_on_is_an_error_or_the_fallback(files, boxes, monkeypatch):
    stop = GuardConfig(check=False, stop=True, inputs="certified")
    guard = Guard(files.network, files.certificate, config=stop)
    with TestClient(service(guard)) as client:
        outside = client.post("/v2/models/model/infer", json=asked(guard, boxes[:1] + np.float32(90)))
        assert outside.status_code == 422
        assert "no certified box" in outside.json()["error"]
        with monkeypatch.context() as patched:
            patched.setattr(guard_file, "run", failing)
            failed = client.post("/v2/models/model/infer", json=asked(guard, boxes[:1]))
        assert failed.status_code == 503
        stopped = client.post("/v2/models/model/infer", json=asked(guard, boxes[:1]))
        assert stopped.status_code == 503
        assert "stopped" in stopped.json()["error"]
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert "sutura_guard_ready 0.0" in client.get("/metrics").text
    answering = Guard(files.network, files.certificate, fallback=lambda alarm: [9, 1, 1, 1, 1], config=stop)
    with TestClient(service(answering)) as client:
        mixed = np.concatenate([boxes[:2], boxes[:1] + np.float32(90)])
        told = client.post("/v2/models/model/infer", json=asked(answering, mixed)).json()
        assert told["parameters"] == {"fallbacks": 1, "fallback_samples": "2"}
        assert told["outputs"][0]["data"][10:] == [9, 1, 1, 1, 1]


def test_an_error_of_our_own_tells_nothing(guard, boxes, monkeypatch):
    def broken(self, x):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Guard, "answer", broken)
    with TestClient(service(guard), raise_server_exceptions=False) as client:
        said = client.post("/v2/models/model/infer", json=asked(guard, boxes[:1]))
    assert said.status_code == 500
    assert said.json() == {"error": "internal error"}


def started(files, *more):
    command = [sys.executable, "-c", "from sutura.cli.app import main; main()", "serve", files.network]
    server = subprocess.Popen(
        [*map(str, command), "--no-check", "--port", "0", "--json", *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while (line := server.stdout.readline()) not in ("}\n", ""):
        lines.append(line)
    return server, json.loads("".join([*lines, line]))


def test_a_real_server_answers_and_stops_gracefully(files, boxes, safe):
    output = ",".join(map(str, safe.tolist()))
    server, told = started(files, f"--safe-output={output}", "--name", "vertical")
    try:
        url = f"{told['url']}{INFER}"
        guard = Guard(files.network, files.certificate, config=GuardConfig(check=False))
        answers = []

        def ask():
            with httpx.Client() as http:
                answers.extend(http.post(url, json=asked(guard, boxes[:5])) for _ in range(10))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [a.status_code for a in answers] == [200] * 40
        assert {a.text for a in answers} == {answers[0].text}
        assert "sutura_guard_samples_total 200.0" in httpx.get(f"{told['url']}/metrics").text
        half = socket.create_connection(("127.0.0.1", int(told["url"].rsplit(":", 1)[1])))
        half.sendall(b"POST /v2 HTTP/1.1\r\nContent-Le")
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
        half.close()
    finally:
        server.kill()
        out, err = server.communicate()
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--safe-output", "a,b"], "must be numbers"),
        (["--safe-output", "1,2"], "has 2 numbers"),
        (["--certificate", "none.json"], "cannot read"),
        (["--host", "256.0.0.1"], "cannot listen"),
        (["--breach-log", "none/log"], "cannot write the breach log"),
    ],
)
def test_what_cannot_be_served_is_one_line(files, more, words):
    result = CliRunner().invoke(main, ["serve", str(files.network), "--no-check", "--port", "0", *more])
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_one_line(files):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["serve", str(files.network), "--no-check", "--port", port])
    assert result.exit_code == 2
    assert "cannot listen at 127.0.0.1 port" in result.stderr


def test_only_onnx_files_are_served(tmp_path):
    result = CliRunner().invoke(main, ["serve", str(tmp_path / "net.pt")])
    assert result.exit_code == 2
    assert "net.pt" in result.stderr
