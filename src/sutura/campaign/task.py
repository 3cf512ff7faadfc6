"""One job: the bytes of a network and of a property in, a document with the verdict out, and nothing else.

A task is pure. What it gives depends on its own bytes and on sutura's version alone (and on the clock where
it has a limit), so it may run on any machine, and its key names its result.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sutura import __version__
from sutura.campaign.instances import Instance
from sutura.errors import CampaignError, NetworkError, SuturaError
from sutura.network.budget import MAX_FILE_BYTES
from sutura.network.read import load, network_bytes
from sutura.property.read import parse_property
from sutura.property.source import read_source, stem
from sutura.report.document import document, outcome
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify


@dataclass(frozen=True, slots=True)
class Limits:
    """What a verdict may depend on beside network and property: wall seconds (None: no limit), the seed, and
    the execution that is proved, with the runtime it was measured on (see VerifyConfig)."""

    timeout: float | None = None
    seed: int = 0
    profile: str = VerifyConfig().profile
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A network and a property as bytes, with their names for messages, and the limits."""

    key: str
    network: bytes
    property: bytes
    names: tuple[str, str]
    limits: Limits
    version: str = __version__


def task(network: bytes, property: bytes, names: tuple[str, str], limits: Limits) -> Task:
    """The task of these bytes; its key is a digest of them, the limits and sutura's version.

    Names are not in it, but for the network's suffix: the same files under other names are the same job.
    """
    told = [__version__, Path(names[0]).suffix.lower(), asdict(limits)]
    parts = (json.dumps(told, sort_keys=True).encode(), network, property)
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return Task(hashlib.sha256(digests).hexdigest(), network, property, names, limits)


def read_task(instance: Instance, limits: Limits, *, external_data: bool = False) -> Task:
    """The task of an instance's files. A property may lie there as NAME.gz, and a network too.

    Raises NetworkError and PropertyError where a file cannot be read.
    """
    place = _lying(instance.folder / instance.network)
    if place.suffix.lower() == ".gz":
        network, name = _inflated(place), place.stem
    else:
        network, name = network_bytes(place, external_data=external_data), place.name
    asked = _lying(instance.folder / instance.property)
    return task(network, read_source(asked), (name, asked.name), limits)


def decide(job: Task) -> dict[str, Any]:
    """The document of a verdict: proved, holds-real, violated or unknown; error where the files are to blame.

    One thread. Raises CampaignError where the task comes from another version of sutura.
    """
    if job.version != __version__:
        raise CampaignError(
            f"a worker runs sutura {__version__}, the campaign {job.version}: install the same everywhere"
        )
    started, spent = time.monotonic(), time.process_time()
    try:
        network, prop = job.names
        loaded = load(job.network, name=network)
        asked = parse_property(job.property, stem(Path(prop)), source=prop)
        limits = job.limits
        config = VerifyConfig(limits.timeout, 1, limits.seed, profile=limits.profile, runtime=limits.runtime)
        said = outcome(asked.name, verify(loaded, asked, config))
        del said["property"]  # a key has results, not names
    except SuturaError as error:
        said = failed(error)
    times = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - spent}
    return document("verdict", {**said, **times})


def failed(error: SuturaError) -> dict[str, Any]:
    """What is said of an instance whose files cannot be used: the kind of error, and its one line."""
    return {"verdict": "error", "kind": type(error).__name__, "reason": " ".join(str(error).split())}


def given_up(reason: str) -> dict[str, Any]:
    """What is said of a job that no worker survives."""
    return document("verdict", {"verdict": "unknown", "reason": reason, "seconds": 0.0, "cpu_seconds": 0.0})


def _lying(place: Path) -> Path:
    """The file itself, or the one beside it that gzip made of it."""
    try:
        packed = place.with_name(f"{place.name}.gz")
        return packed if not place.exists() and packed.exists() else place
    except (OSError, ValueError):  # whoever opens it says what is wrong with the name
        return place


def _inflated(place: Path) -> bytes:
    """The network in a gzip file, of bounded size."""
    try:
        with gzip.open(place) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NetworkError(f"cannot inflate {place.name}: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise NetworkError(f"{place.name} inflates to more than {MAX_FILE_BYTES} bytes")
    return data
