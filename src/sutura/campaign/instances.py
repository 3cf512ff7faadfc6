"""What a campaign is to decide: the lines of a VNN-COMP list, or the files of a folder."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from sutura.errors import CampaignError
from sutura.network.read import READERS

LIST = "instances.csv"
LARGEST_LIST = 64 * 2**20
"""Bytes of a list."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A network and a property by their names in the list, where the files lie, and its limit in seconds."""

    network: str
    property: str
    folder: Path
    timeout: float | None = None


def read_instances(place: Path) -> tuple[Instance, ...]:
    """The instances of a CSV file, or of a folder.

    A line of the file is network, property and seconds (which may be missing), as in VNN-COMP; a first line
    whose seconds are no number names the columns. Names are relative to the file. A folder is read by its
    instances.csv; without one every network in it is asked about every property in it. Whether the named
    files exist is not looked at. Raises CampaignError where the list itself cannot be read or has no line.
    """
    if place.is_dir():
        return read_instances(place / LIST) if (place / LIST).is_file() else _all_pairs(place)
    try:
        data = place.read_bytes()[: LARGEST_LIST + 1]
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise CampaignError(f"cannot read {place}: {error.strerror}; give a list or a folder") from None
    except ValueError:
        raise CampaignError(
            f"{place} is no text in UTF-8; a list has lines NETWORK,PROPERTY,SECONDS"
        ) from None
    if len(data) > LARGEST_LIST:
        raise CampaignError(f"{place} is larger than {LARGEST_LIST:,} bytes; split it into several lists")
    return _lines(text, place)


def _lines(text: str, place: Path) -> tuple[Instance, ...]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise CampaignError(f"{place} is no CSV file: {error}") from None
    numbered = [(at, [cell.strip() for cell in row]) for at, row in enumerate(rows, start=1) if any(row)]
    if numbered and _names_columns(numbered[0][1]):
        del numbered[0]
    if not numbered:
        raise CampaignError(f"{place} lists nothing; its lines are NETWORK,PROPERTY,SECONDS")
    return tuple(_instance(row, f"{place}:{at}", place.parent) for at, row in numbered)


def _names_columns(row: Sequence[str]) -> bool:
    """Whether a first line is a heading: its first cell is no network's name."""
    return not row[0].lower().removesuffix(".gz").endswith(tuple(READERS))


def _instance(row: Sequence[str], where: str, folder: Path) -> Instance:
    if len(row) < 2 or not row[0] or not row[1]:
        raise CampaignError(f"{where}: '{','.join(row)[:80]}' is not NETWORK,PROPERTY,SECONDS")
    seconds = row[2] if len(row) > 2 else ""
    try:
        timeout = float(seconds) if seconds else None
    except ValueError:
        timeout = math.nan
    if timeout is not None and not 0 < timeout < math.inf:
        raise CampaignError(f"{where}: '{seconds[:40]}' is no number of seconds above 0")
    return Instance(row[0], row[1], folder, timeout)


def _all_pairs(folder: Path) -> tuple[Instance, ...]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [file.relative_to(folder).as_posix() for file in files]
    plain = {name: name.lower().removesuffix(".gz") for name in names}
    networks = [name for name in names if plain[name].endswith(tuple(READERS))]
    properties = [name for name in names if plain[name].endswith(".vnnlib")]
    if not networks or not properties:
        raise CampaignError(
            f"{folder} has no {LIST}, {len(networks)} networks (.onnx, .nnet) and {len(properties)} "
            "properties (.vnnlib); put a list there, or both kinds of files"
        )
    return tuple(Instance(network, prop, folder) for network, prop in product(networks, properties))
