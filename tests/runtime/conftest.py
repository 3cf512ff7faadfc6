"""One small repaired network for all tests of this room."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sutura.gates.mend import RepairConfig
from sutura.gates.repair import repair
from sutura.network.read import load
from sutura.property.read import read_property

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"


class Files(NamedTuple):
    """A repaired network with its certificate and properties, in one folder."""

    network: Path
    certificate: Path
    properties: tuple[Path, Path]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    loaded = load(EXAMPLE / "vertical_cas.onnx")
    places = tuple(folder / f"{name}.vnnlib" for name in ("no_climb", "alert"))
    for place in places:
        place.write_bytes((EXAMPLE / place.name).read_bytes())
    fixed = repair(loaded, [read_property(p) for p in places], RepairConfig(boxes=200, workers=1))
    (folder / "fixed.onnx").write_bytes(fixed.onnx)
    (folder / "fixed.cert.json").write_bytes(fixed.certificate)
    return Files(folder / "fixed.onnx", folder / "fixed.cert.json", places)


@pytest.fixture(scope="session")
def boxes(files):
    """The properties and float32 points in their boxes, many on faces and corners."""
    draw = np.random.default_rng(5)
    parts = []
    for place in files.properties:
        for case in read_property(place).cases:
            low, high = case.box.float32_inside()
            share = draw.choice([0.0, 1.0, 0.3, 0.8], (400, len(low)))
            points = (low + draw.random((400, len(low))) * (high - low)).astype(np.float32)
            points = np.where(share == 0, low, np.where(share == 1, high, points))
            parts.append(np.clip(points, low, high).astype(np.float32))
    return np.concatenate(parts)


@pytest.fixture(scope="session")
def safe(files):
    """An output that is safe in both properties, found by trial."""
    properties = [read_property(p) for p in files.properties]
    draw = np.random.default_rng(0)
    for y in draw.integers(-3, 4, (10_000, properties[0].outputs)).astype(np.float32):
        if not any(
            all(inequality.holds(y) for inequality in conjunction)
            for p in properties
            for case in p.cases
            for conjunction in case.unsafe
        ):
            return y
    raise AssertionError("no safe output found")
