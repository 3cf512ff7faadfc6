"""The corpus of bombs through the command line itself: one line, code 2, within two seconds and 512 MB.

Every file is made here. A parent that has imported the commands forks for each, so that what is measured is
the file; one test pays for the imports too.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

ONNX = Path(__file__).resolve().parents[1] / "onnx"
sys.path.append(str(ONNX))
import hostile  # noqa: E402

# Two seconds are meant for a machine of its own; the suite runs on every core of a shared one.
SECONDS, MEMORY = 2 * 2.0, 512 * 2**20
GOOD = b"""(declare-const X_0 Real)(declare-const X_1 Real)(declare-const X_2 Real)(declare-const X_3 Real)
(declare-const Y_0 Real)
(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))
(assert (>= X_2 0))(assert (<= X_2 1))(assert (>= X_3 0))(assert (<= X_3 1))
"""
UNSAFE = b"(assert (<= Y_0 0.5))\n"
V2 = b"""(vnnlib-version <2.0>)
(declare-network N (declare-input X real [4])(declare-output Y real [1]))
"""


def external(location, **entries):
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    proto.dims.extend([4, 1])
    for key, value in {"location": location, **entries}.items():
        proto.external_data.add(key=key, value=value)
    return hostile.model([helper.make_node("MatMul", ["x", "w"], ["y"])], [proto]).SerializeToString()


class Boom:
    """A pickle that would run a program."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def torch_file():
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Boom()))
    return place.getvalue()


def relu():
    return hostile.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [hostile.tensor("w", np.ones((4, 1), np.float32))],
    ).SerializeToString()


def built(name):
    found = hostile.BOMBS[name][0]()
    return found if isinstance(found, bytes) else found.SerializeToString()


NETWORKS = {
    **{name: ("net.onnx", lambda name=name: built(name), hostile.BOMBS[name][1]) for name in hostile.BOMBS},
    "pickle": ("net.pkl", lambda: pickle.dumps(Boom()), "torch.onnx.export"),
    "torch file": ("net.pt", torch_file, "torch.onnx.export"),
    "torch file called pth": ("net.pth", torch_file, "torch.onnx.export"),
    "torch file called onnx": ("net.onnx", torch_file, "torch.onnx.export"),
    "pickle called onnx": ("net.onnx", lambda: pickle.dumps(Boom()), "torch.onnx.export"),
    "zeros": ("net.onnx", lambda: bytes(50_000_000), "not an ONNX file"),
    "text": ("net.onnx", lambda: b"(" * 1_000_000, "no ordinary ONNX file"),
    "nnet of numbers": ("net.nnet", lambda: b"1," * 10_000_000, "net.nnet"),
    "nnet that claims": ("net.nnet", lambda: b"9999999,9999999,9999999,9999999,\n" * 3, "net.nnet"),
}
WITH_EXTERNAL = {
    "to a file above": (external("../secret"), "own folder"),
    "to an absolute file": (external("/etc/passwd"), "own folder"),
    "to a file below": (external("sub/secret"), "own folder"),
    "to a link": (external("link"), "are a link"),
    "to a hard link": (external("hard"), "one name"),
    "to a folder": (external("sub"), "plain file"),
    "to a pipe": (external("pipe"), "plain file"),
    "to nothing": (external("none"), "cannot open"),
    "to this folder": (external("."), "own folder"),
    "petabytes long": (external("plain", length=str(2**50)), "its dims need"),
    "beyond the end": (external("plain", offset=str(2**40)), "fetch the file again"),
    "a negative offset": (external("plain", offset="-8"), "no number"),
    "an attribute": (external("plain", __class__="os"), "strangely"),
    "no location": (external(""), "strangely"),
    "a null": (external("a\0b"), "own folder"),
}
PROPERTIES = {
    "gzip": ("p.vnnlib.gz", lambda: gzip.compress(b";\n" * (45 * 2**20), 9), "inflates more than 200"),
    "ors": ("p.vnnlib", lambda: GOOD + b"(assert (or (<= Y_0 1) (>= Y_0 2)))\n" * 40, "100,000"),
    "parentheses": ("p.vnnlib", lambda: GOOD + b"(" * 100_000, "nested parentheses"),
    "ors, 2.0": ("p.vnnlib", lambda: V2 + b"(assert (or (<= Y[0] 1.0) (>= Y[0] 2.0)))\n" * 40, ""),
    "parentheses, 2.0": ("p.vnnlib", lambda: V2 + b"(assert " + b"(and " * 100_000, "nested parentheses"),
    "index, 2.0": ("p.vnnlib", lambda: V2 + b"(assert (<= X[99999999999999999999] 1.0))\n", ""),
    "dims, 2.0": ("p.vnnlib", lambda: V2.replace(b"[4]", b"[4611686018427387904,4]"), ""),
    "exponent": ("p.vnnlib", lambda: GOOD + b"(assert (<= Y_0 1e999999999))", "exponent"),
    "digits": ("p.vnnlib", lambda: GOOD + b"(assert (<= Y_0 1" + b"0" * 10_000_000 + b"))", "characters"),
    "repeated": ("p.vnnlib", lambda: GOOD + UNSAFE + b"(assert (<= X_0 1))\n" * 1_000_000, "50,000"),
    "comments": ("p.vnnlib", lambda: GOOD + UNSAFE + b";\n" * 20_000_000, "comments"),
    "empty lists": ("p.vnnlib", lambda: GOOD + UNSAFE + b"()" * 10_000_000, "empty lists"),
    "idle": ("p.vnnlib", lambda: GOOD + UNSAFE + b"(check-sat)\n" * 2_000_000, "assert nothing"),
    "trivial": ("p.vnnlib", lambda: GOOD + UNSAFE + b"(assert true)\n" * 1_500_000, "inequalities"),
    "binary": ("p.vnnlib", lambda: bytes(range(256)) * 1000, ""),
}


def judged(run, folder):
    """Run in a forked child: exit code, what it said, its CPU seconds and the memory it took beyond ours."""
    child = os.fork()
    if not child:
        signal.alarm(120)
        with (folder / "said").open("w") as said:
            sys.stdout = sys.stderr = said
            try:
                run()
                code = 0
            except SystemExit as leaving:
                code = leaving.code
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the child must end here
                said.write(f"escaped: {error!r}")
                code = 70
        os._exit(code)
    _, status, used = os.wait4(child, 0)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = used.ru_utime + used.ru_stime
    return os.waitstatus_to_exitcode(status), seconds, (used.ru_maxrss - own) * 1024


def refused(arguments, folder, words):
    from sutura.cli.app import main

    code, seconds, memory = judged(lambda: main([str(a) for a in arguments]), folder)
    said = (folder / "said").read_text()
    assert code == 2, said[-2000:]
    assert len(said.splitlines()) == 1, said[-2000:]
    assert said.startswith("error: ")
    assert words in said
    assert len(said) < 4000
    assert seconds < SECONDS
    assert memory < MEMORY
    assert not (folder / "pwned").exists()


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What the commands import, so that children need not."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import sutura.cli.repair
    import sutura.cli.verify  # noqa: F401


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(folder, name):
    place, build, words = NETWORKS[name]
    (folder / place).write_bytes(build())
    (folder / "p.vnnlib").write_bytes(GOOD + UNSAFE)
    refused(["verify", folder / place, folder / "p.vnnlib"], folder, words)


@pytest.mark.parametrize("name", WITH_EXTERNAL)
def test_external_data(folder, name):
    data, words = WITH_EXTERNAL[name]
    inner = folder / "net"
    (inner / "sub").mkdir(parents=True)
    (folder / "secret").write_bytes(bytes(64))
    (inner / "sub" / "secret").write_bytes(bytes(64))
    (inner / "plain").write_bytes(bytes(64))
    (inner / "link").symlink_to(folder / "secret")
    (inner / "hard").hardlink_to(folder / "secret")
    os.mkfifo(inner / "pipe")
    (inner / "net.onnx").write_bytes(data)
    (folder / "p.vnnlib").write_bytes(GOOD + UNSAFE)
    given = ["verify", inner / "net.onnx", folder / "p.vnnlib"]
    refused(given, folder, "outside the file")
    refused([*given, "--external-data"], folder, words)


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(folder, name):
    place, build, words = PROPERTIES[name]
    (folder / "net.onnx").write_bytes(relu())
    (folder / place).write_bytes(build())
    refused(["verify", folder / "net.onnx", folder / place], folder, words)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from pathlib import Path
from sutura.cli.app import main
try:
    main(sys.argv[2:])
finally:
    Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text())
"""


@pytest.mark.parametrize("name", ["constant_of_shape", "gzip", "torch file"])
def test_whole_processes(folder, name):
    (folder / "net.onnx").write_bytes(relu())
    (folder / "p.vnnlib").write_bytes(GOOD + UNSAFE)
    file, build, words = {**NETWORKS, **PROPERTIES}[name]
    (folder / file).write_bytes(build())
    network = file if name in NETWORKS else "net.onnx"
    place = file if name in PROPERTIES else "p.vnnlib"
    command = [sys.executable, "-c", LIMITED, "status", "verify", network, place, "--json"]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        child = subprocess.run(command, stdout=out, stderr=err, cwd=folder, check=False)
    said = (folder / "err").read_text()
    assert child.returncode == 2, said
    assert len(said.splitlines()) == 1
    assert words in said
    assert (folder / "out").read_text() == ""
    # Of this process alone: what a parent held before the exec counts into getrusage's figure.
    peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) * 1024 < MEMORY


def test_weights_beside_the_network_are_read_where_asked(folder):
    from click.testing import CliRunner

    from sutura.cli.app import main

    weights = np.array([[0.25], [0.5], [1], [2]], np.float32)
    (folder / "plain").write_bytes(bytes(16) + weights.tobytes())
    (folder / "net.onnx").write_bytes(external("plain", offset="16", length="16"))
    (folder / "p.vnnlib").write_bytes(GOOD + b"(assert (>= Y_0 3.76))\n")
    given = ["verify", "net.onnx", "p.vnnlib", "--json", "--external-data"]
    found = CliRunner().invoke(main, given)
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["properties"][0]["verdict"] == "proved"
    (folder / "p.vnnlib").write_bytes(GOOD + b"(assert (>= Y_0 3.74))\n")
    assert CliRunner().invoke(main, given).exit_code == 1
    assert CliRunner().invoke(main, ["inspect", "net.onnx", "--external-data"]).exit_code == 0
    assert CliRunner().invoke(main, ["inspect", "net.onnx"]).exit_code == 2
