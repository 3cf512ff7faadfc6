"""Hostile files are refused in little time and memory, in a child process with hard limits."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import time

import pytest
from exported import LEANING_COUNTS, LEANING_TREE, ORDER_PROPERTY, certificate, leaning
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.certificate import schema
from sutura.certificate.check import check
from sutura.certificate.errors import CertificateError
from sutura.certificate.tree import decode
from sutura.certificate.vnnlib import read_property
from sutura.certificate.wire import read_model

# Two seconds are meant for a machine of its own; the suite runs on every core of a shared one.
SECONDS, MEMORY = 2 * 2.0, 512 << 20


def field(number, payload):
    """A length-delimited protobuf field."""
    size, out = len(payload), bytearray([number << 3 | 2])
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out) + bytes([size]) + payload


def nested_branches(depth):
    """A graph whose one node holds a branch, whose one node holds a branch, and so on."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(1, b"g") + b"\xa0\x01\x05" + field(6, graph)))
    return graph


HUGE_DIMS = field(7, field(5, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x40\x10\x01" + field(8, b"t")))
NETWORKS = {
    "lying dims": HUGE_DIMS,
    "many fields": b"\x08\x01" * 5_000_000,
    "many empty nodes": field(7, b"\x0a\x00" * 2_000_000),
    "endless number": b"\x08" + b"\xff" * 1_000_000,
    "lying length": b"\x3a\xff\xff\xff\xff\x0f",
    "nested branches": field(7, nested_branches(2000)),
    "zeros": bytes(50_000_000),
}
PROPERTIES = {
    "parentheses": b"(" * 5_000_000,
    "choices": ORDER_PROPERTY + b"(assert (or (<= Y_0 0) (<= Y_1 0)))" * 60,
    "long number": ORDER_PROPERTY.replace(b"1.0", b"1" * 4_000_000, 1),
    "large exponent": ORDER_PROPERTY.replace(b"1.0", b"1e99999999", 1),
    "one token": b"(assert " + b"a" * 20_000_000,
    "gap": b"(declare-const X_99999999 Real)",
    "powers": ORDER_PROPERTY + b"(assert (<= (* " + b"1e399 " * 5000 + b"Y_0) 0))",
}
CERTIFICATES = {
    "lists": b"[" * 10_000_000,
    "empty lists": b"[" + b"[]," * 10_000_000 + b"[]]",
    "digits": b'{"version":' + b"9" * 10_000_000 + b"}",
    "spaces": b" " * 60_000_000,
}


def run_limited(tmp_path, network, text, cert, suffix=""):
    paths = [tmp_path / "n.onnx", tmp_path / f"p.vnnlib{suffix}", tmp_path / "c.json"]
    for path, data in zip(paths, (network, text, cert), strict=True):
        path.write_bytes(data)
    began = time.process_time()
    done = subprocess.run(
        [sys.executable, "-m", "sutura.certificate.check", *map(str, paths), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            resource.setrlimit(resource.RLIMIT_CPU, (5, 5)),
        ),
    )
    assert time.process_time() - began < SECONDS
    assert "Traceback" not in done.stderr, done.stderr[-500:]
    return done


def expect_refusal(done):
    assert done.returncode == 1, (done.returncode, done.stderr)
    report = json.loads(done.stdout)
    assert not report["accepted"]
    assert report["seconds"] < SECONDS
    assert "MemoryError" not in report["reason"]


@pytest.mark.parametrize("name", NETWORKS)
def test_hostile_networks(tmp_path, name):
    cert = certificate(NETWORKS[name], [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    expect_refusal(run_limited(tmp_path, NETWORKS[name], ORDER_PROPERTY, cert))


@pytest.mark.parametrize("name", PROPERTIES)
def test_hostile_properties(tmp_path, name):
    network = leaning().save()
    cert = certificate(network, [PROPERTIES[name]], LEANING_TREE, LEANING_COUNTS)
    expect_refusal(run_limited(tmp_path, network, PROPERTIES[name], cert))


@pytest.mark.parametrize("name", CERTIFICATES)
def test_hostile_certificates(tmp_path, name):
    expect_refusal(run_limited(tmp_path, leaning().save(), ORDER_PROPERTY, CERTIFICATES[name]))


def test_a_compressed_bomb_is_not_inflated(tmp_path):
    bomb = gzip.compress(bytes(300_000_000))
    done = run_limited(tmp_path, b"", bomb, b"{}", ".gz")
    assert done.returncode == 2
    assert "inflates" in done.stderr


def test_a_compressed_property_counts_as_its_text(tmp_path):
    network = leaning().save()
    cert = certificate(network, [ORDER_PROPERTY], LEANING_TREE, LEANING_COUNTS)
    done = run_limited(tmp_path, network, gzip.compress(ORDER_PROPERTY), cert, ".gz")
    assert done.returncode == 0, done.stdout
    assert run_limited(tmp_path, network, gzip.compress(ORDER_PROPERTY)[:-3], cert, ".gz").returncode == 2


READERS = {"model": read_model, "property": read_property, "certificate": schema.loads, "tree": decode}
SEEDS = {
    "model": leaning().save(),
    "property": ORDER_PROPERTY,
    "certificate": certificate(b"", [b""], LEANING_TREE, LEANING_COUNTS),
    "tree": b"\x02\x00\x00\x00\x00\x01\x00\x00\x00",
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_readers_raise_one_error_only(name, data):
    seed = SEEDS[name]
    text = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    try:
        READERS[name](bytes(text))
    except CertificateError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_garbage_is_refused_without_an_exception(network, text, cert):
    assert not check(network, [text], cert).accepted
