"""`sutura risk`: how far from harm is each input of a data set?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import click
import numpy as np
from rich.table import Table

from sutura.cli import options
from sutura.cli.console import Exit, bar, guarded, messages, plain, print_json
from sutura.dataset import Dataset, read_dataset
from sutura.errors import DataError, NetworkError, PropertyError
from sutura.network.graph import Network
from sutura.network.onnx_write import RESERVED
from sutura.network.read import Loaded, load
from sutura.outward import at_least, at_most
from sutura.report import risk_document, risk_plot
from sutura.report.document import document
from sutura.risk.ball import Domain, Norm, domain
from sutura.risk.deepquant import DeepQuantConfig
from sutura.risk.quantify import RISKS, RiskConfig, RiskResult
from sutura.risk.safety import Adversarial, Invariance, Reachability, Risk, Uncertainty
from sutura.risk.survey import Summary, summarise, survey
from sutura.writing import write_all


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that a risk is made of."""

    decision: Literal["argmax", "argmin"]
    kl: float
    output: int
    limits: str | None
    radius: float | None


@click.command("risk")
@click.argument("network", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Inputs: .npz with x, and y if any."
)
@click.option(
    "--risk", "names", default="adversarial", show_default=True, help=f"Of {', '.join(RISKS)}; by commas."
)
@click.option("--norm", type=click.Choice(["l1", "l2", "linf"]), default="linf", show_default=True)
@click.option(
    "--domain",
    "limits",
    default="0,1",
    show_default=True,
    help="LOW,HIGH of every input, a .npz with low and high, or 'data'.",
)
@click.option(
    "--units",
    type=click.Choice(["width", "raw"]),
    default="width",
    show_default=True,
    help="What distance 1 is: an input's width in the domain, or 1.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    help="Seconds of branch and bound an input [default: 5 with up to 8 inputs, 0 with more].",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds of linear bounds an input before giving them up.",
)
@click.option(
    "--bounds",
    type=click.Choice(["crown", "slopes", "lipschitz", "none"]),
    default="crown",
    show_default=True,
)
@click.option(
    "--estimator",
    type=click.Choice(["ratio", "deepquant", "clever", "none"]),
    default="ratio",
    show_default=True,
)
@click.option(
    "--objective",
    type=click.Choice(["margin", "logit"]),
    default="margin",
    show_default=True,
    help="Of deepquant: the paper's or the released code's.",
)
@click.option(
    "--kl",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="Uncertain at this KL(uniform || output) or less.",
)
@click.option(
    "--output",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Output of the reachability risk.",
)
@click.option("--range", "reach", help="LOW,HIGH that the output must not leave; either may be empty.")
@click.option(
    "--radius",
    type=click.FloatRange(min=0),
    help="Instead of --range: the output's own range within this Linf distance of each input.",
)
@click.option(
    "--no-gradients", is_flag=True, help="Treat the network as a black box in attacks and estimates."
)
@click.option("--first", type=click.IntRange(min=1), help="Only so many inputs.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Journal of finished inputs: begun, or gone on with.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture of the distribution and of the worst inputs (.png).",
)
@options.decision
@options.workers
@options.external_data
@options.seed
@options.as_json
@guarded
def command(**given: Any) -> Exit:
    """How far is each input of a data set from harm: certified below, attacked above.

    A radius is the largest distance at which the risk does not occur. lower is certified for every float32
    execution, upper has a witness replayed in ONNX Runtime, the estimate may lie anywhere.
    """
    if given["plot"] is not None:
        risk_plot.check_possible()
    data = _first(read_dataset(given["data"]), given["first"])
    loaded = _loaded(given["network"], external_data=given["external_data"])
    configs = _configs(given, loaded, data)
    if given["resume"] is not None and len(configs) > 1:
        raise PropertyError("--resume keeps the results of one risk; run the risks one by one")
    found: list[tuple[str, RiskConfig, list[RiskResult], Summary]] = []
    for name, config in configs:
        with bar(quiet=given["as_json"], noun="inputs") as listen:
            results = survey(loaded, data, config, journal=given["resume"], listen=listen)
        found.append((name, config, results, summarise(results, seed=given["seed"])))
    if given["plot"] is not None:
        _draw(given["plot"], data, found)
    if given["as_json"]:
        print_json(document("risk", _body(loaded.network, data, found)))
    else:
        for name, _, results, said in found:
            _show(name, results, said)
    return Exit.HOLDS


def _loaded(file: Path, *, external_data: bool) -> Loaded:
    """The network. Raises NetworkError, which tells what to do instead where a repair put gates in it."""
    try:
        return load(file, external_data=external_data)
    except NetworkError as error:
        # No other network has nodes of these names.
        if f"node '{RESERVED}" not in str(error):
            raise
        raise NetworkError(
            f"{plain(str(file))} was repaired and has gates, around which no radius is measured: measure the "
            f"network that was repaired; what holds of the repaired one `sutura check` tells"
        ) from None


def _body(
    network: Network, data: Dataset, found: list[tuple[str, RiskConfig, list[RiskResult], Summary]]
) -> dict[str, Any]:
    truth = None if data.y is None else [int(v) for v in data.y]
    return {
        "network": network.name,
        "sha256": network.sha256,
        "data": data.name,
        "asked": [risk_document.asked(config, network) for _, config, _, _ in found],
        "summaries": [risk_document.summary(name, said, results) for name, _, results, said in found],
        "results": [
            risk_document.entry(i, truth[i] if truth else None, name, result)
            for name, _, results, _ in found
            for i, result in enumerate(results)
        ],
    }


def _configs(given: dict[str, Any], loaded: Loaded, data: Dataset) -> list[tuple[str, RiskConfig]]:
    asked = Asked(given["decision"], given["kl"], given["output"], given["reach"], given["radius"])
    names = [name.strip() for name in given["names"].split(",")]
    limits = _domain(given["limits"], given["units"], loaded, data)
    return [
        (
            name,
            RiskConfig(
                risk=_risk(name, asked),
                norm=cast(Norm, given["norm"]),
                domain=limits,
                bounds=given["bounds"],
                budget=given["budget"],
                patience=given["patience"],
                estimator=given["estimator"],
                deepquant=DeepQuantConfig(objective=given["objective"]),
                reach=math.inf if given["radius"] is None else given["radius"],
                gradients=not given["no_gradients"],
                workers=given["workers"],
                seed=given["seed"],
            ),
        )
        for name in names
    ]


def _risk(name: str, asked: Asked) -> Risk:
    match name:
        case "adversarial":
            return Adversarial(asked.decision)
        case "invariance":
            return Invariance(asked.decision)
        case "uncertainty":
            return Uncertainty(asked.kl)
        case "reachability":
            if asked.limits is None and asked.radius is not None:
                return Reachability(asked.output)
            if asked.limits is None:
                raise PropertyError(
                    "the reachability risk needs --range LOW,HIGH that the output must not leave, or --radius"
                )
            low, high = _pair(asked.limits, "--range")
            return Reachability(asked.output, low, high)
        case _:
            near = options.nearest(name, RISKS)
            raise PropertyError(
                f"there is no risk '{plain(name)}'; did you mean {near}? All: {', '.join(RISKS)}"
            )


def _pair(text: str, option: str) -> tuple[float, float]:
    """LOW,HIGH; an end left out is infinite."""
    parts = text.split(",")
    try:
        low, high = (part.strip() for part in parts)
        ends = float(low) if low else -math.inf, float(high) if high else math.inf
    except ValueError:
        raise PropertyError(f"{option} is '{plain(text)}'; give two numbers, such as 0,1") from None
    if math.isnan(ends[0]) or math.isnan(ends[1]):
        raise PropertyError(f"{option} is '{plain(text)}'; give two numbers, such as 0,1")
    return ends


def _domain(text: str, units: Literal["width", "raw"], loaded: Loaded, data: Dataset) -> Domain:
    size = loaded.network.input_size
    if text == "data":
        flat = data.x.reshape(len(data), -1)
        return domain(flat.min(axis=0), flat.max(axis=0), units=units)
    if text.endswith(".npz"):
        return domain(*_ends(Path(text)), units=units)
    low, high = _pair(text, "--domain")
    return domain(np.full(size, low), np.full(size, high), units=units)


def _ends(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["low"], archive["high"]
    except (KeyError, ValueError, EOFError) as error:
        raise DataError(
            f"{path.name} is no domain: write it with numpy.savez(path, low=..., high=...) ({error})"
        ) from None


def _first(data: Dataset, count: int | None) -> Dataset:
    if count is None:
        return data
    return Dataset(data.name, data.x[:count], None if data.y is None else data.y[:count])


def _draw(place: Path, data: Dataset, found: list[tuple[str, RiskConfig, list[RiskResult], Summary]]) -> None:
    files = {}
    for name, config, results, said in found:
        where = place if len(found) == 1 else place.with_stem(f"{place.stem}.{name}")
        title = f"{name} risk, {config.norm}, {len(results)} inputs"
        files[where] = risk_plot.risk_plot(title, results, data.x, said.worst)
    write_all(files)


def _show(name: str, results: list[RiskResult], said: Summary) -> None:
    console = messages()
    table = Table("share of inputs", "certified lower", "attacked upper", title=f"{name} risk: radii")
    for key in said.lower:
        table.add_row(
            f"{float(key):.0%}", _spread(said.lower[key], at_least), _spread(said.upper[key], at_most)
        )
    console.print(table)
    classes = Table("decision", "inputs", "median lower", "median upper", "least lower", "least upper")
    for row in said.classes:
        lower, least_lower = at_least(row.lower), at_least(row.least_lower)
        upper, least_upper = at_most(row.upper), at_most(row.least_upper)
        classes.add_row(str(row.label), str(row.inputs), lower, upper, least_lower, least_upper)
    console.print(classes)
    console.print(
        f"{said.inputs} inputs, {said.certified} with a certified radius, {said.attacked} with a witness; "
        f"mean lower / upper {_spread(said.tightness, at_least)}; "
        f"worst inputs: {', '.join(map(str, said.worst))}"
    )
    for reason in dict.fromkeys(r.reason for r in results if r.reason):
        count = sum(r.reason == reason for r in results)
        console.print(f"{count} of {len(results)}: {plain(reason)}")
    if any(r.estimate is not None for r in results):
        console.print("estimates (in --json) are no bounds: they may lie on the unsafe side")


def _spread(found: Any, rounded: Callable[[float], str]) -> str:
    return f"{rounded(found.value)} ({found.low:.4g} to {found.high:.4g})"
