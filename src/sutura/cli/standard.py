"""The VNN-LIB 2.0 solver interface: `verify` with --network, and `supports`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from jaxtyping import Float32

from sutura.cli.console import Exit, guarded
from sutura.errors import MismatchError, NetworkError, PropertyError
from sutura.network.budget import shown_shape
from sutura.network.onnx_file import NEWEST_OPSET, OLDEST_OPSET, open_file
from sutura.network.onnx_read import OPERATORS
from sutura.network.read import Loaded, load
from sutura.property import vnnlib1
from sutura.property.quote import quote
from sutura.property.read import is_version_2
from sutura.property.source import read_source, stem
from sutura.property.spec import Property
from sutura.property.vnnlib2 import Query, Tensor, parse_query
from sutura.verdict.outcome import Proved, Violated, Witness
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify
from sutura.writing import write_all


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks; `networks` are the words after --network, NAME=FILE each.

    `started` is the moment from which `timeout` counts. `assignments` is the folder for serialised witnesses.
    """

    query: Path
    networks: tuple[str, ...]
    timeout: float | None
    assignments: Path | None
    started: float


def answer(request: Request, config: VerifyConfig) -> Exit:
    """Print the answer as the standard words it: sat (with the assignment), unsat, unknown or timed-out.

    Raises a SuturaError, with nothing printed, where query and networks are not supported or do not fit.
    """
    text = read_source(request.query)
    if is_version_2(text):
        query = parse_query(text, stem(request.query), source=str(request.query))
        prop, declared = query.property, query
    else:
        prop, declared = vnnlib1.parse(text, stem(request.query), source=str(request.query)), None
    loaded = load(_network(request.networks, None if declared is None else declared.network))
    if declared is not None:
        _check_shapes(declared, loaded)
    word, witness = _decided(loaded, prop, request, config)
    if witness is None:
        click.echo(word)
    elif request.assignments is not None:
        _serialise(request.assignments, declared, witness)
        click.echo(word)
    else:
        click.echo(
            "\n".join([word, *(_plain(witness) if declared is None else _assigned(declared, witness))])
        )
    return Exit.HOLDS


def _decided(
    loaded: Loaded, prop: Property, request: Request, config: VerifyConfig
) -> tuple[str, Witness | None]:
    """The word of the standard, and the witness where there is one."""
    config = replace(config, timeout=_remaining(request))
    verdict = verify(loaded, prop, config).verdict
    if isinstance(verdict, Violated):
        return "sat", verdict.witness
    if isinstance(verdict, Proved):
        return "unsat", None
    late = request.timeout is not None and time.monotonic() - request.started >= _search_until(
        request.timeout
    )
    return ("timed-out" if late else "unknown"), None


def _network(given: Sequence[str], declared: str | None) -> Path:
    """The file given for the one network of the query; VNN-LIB 1.0 does not name it, so any name will do."""
    pairs = [word.partition("=") for word in given]
    for word, (name, sign, file) in zip(given, pairs, strict=True):
        if not (name and sign and file):
            raise NetworkError(f"--network {quote(word)} must be NAME=FILE, such as N=net.onnx")
    if len(pairs) != 1:
        names = ", ".join(name for name, _, _ in pairs)
        raise NetworkError(f"the query is about one network and {len(pairs)} are given ({names}); give one")
    name, _, file = pairs[0]
    if declared is not None and name != declared:
        raise NetworkError(
            f"the query declares network {quote(declared)} and --network gives {quote(name)}; "
            f"say --network {declared}={file}"
        )
    return Path(file)


def _check_shapes(query: Query, loaded: Loaded) -> None:
    """The declared shapes must be those of the file, axis by axis, where the file fixes them."""
    if loaded.original is None:
        return
    file = open_file(loaded.original)
    for end, tensor, dims in (
        ("input", query.input, file.input_dims),
        ("output", query.output, file.output_dims),
    ):
        if dims is None or _fits(tensor, dims):
            continue
        axes = shown_shape([n or 0 for n in dims]).replace("scalar", "[]")
        raise MismatchError(
            f"{end} {quote(tensor.name)} is declared as {list(tensor.shape)}, but the network has {axes} "
            "(0: any length); correct the query"
        )


def _fits(tensor: Tensor, dims: Sequence[int | None]) -> bool:
    return len(tensor.shape) == len(dims) and all(
        n in (None, m) for n, m in zip(dims, tensor.shape, strict=True)
    )


def _assigned(query: Query, witness: Witness) -> list[str]:
    """Header and values of both tensors, as the standard lists them."""
    lines: list[str] = []
    for tensor, values in ((query.input, witness.input), (query.output, witness.output)):
        lines.append(f"{tensor.name} {tensor.type} [{','.join(map(str, tensor.shape))}]")
        lines += _numbers(values)
    return lines


def _plain(witness: Witness) -> list[str]:
    """The assignment of a VNN-LIB 1.0 query, which declares X_i and Y_i, as the competition prints it."""
    pairs = [
        f"({letter}_{i} {number})"
        for letter, values in (("X", witness.input), ("Y", witness.output))
        for i, number in enumerate(_numbers(values))
    ]
    return [f"({pairs[0]}", *pairs[1:-1], f"{pairs[-1]})"]


def _numbers(values: Float32[np.ndarray, " n"]) -> list[str]:
    """Digits that give each float32 number back exactly, also to a reader in float64."""
    return [repr(float(v)) for v in values.reshape(-1)]


def _serialise(folder: Path, query: Query | None, witness: Witness) -> None:
    """One TensorProto file a variable."""
    from onnx import numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    inputs, outputs = witness.input, witness.output
    named = {"X": inputs, "Y": outputs}
    if query is not None:
        named = {
            query.input.name: inputs.reshape(query.input.shape),
            query.output.name: outputs.reshape(query.output.shape),
        }
    tensors = {folder / f"{name}.pb": numpy_helper.from_array(v, name) for name, v in named.items()}
    write_all({place: tensor.SerializeToString() for place, tensor in tensors.items()})


def _remaining(request: Request) -> float | None:
    """What reading has left of the timeout; a search that is given next to nothing ends at once."""
    used = time.monotonic() - request.started
    return None if request.timeout is None else max(1e-9, _search_until(request.timeout) - used)


def _search_until(timeout: float) -> float:
    """A second of the limit, less of a short one, is for the start of the program and the step under way.

    Whoever counts from the start of the process, and ends it at the limit, is to hear the answer before.
    """
    return timeout - min(1.0, 0.1 * timeout)


@click.command("supports")
@click.option("--onnx-opset-versions", "question", flag_value="opsets", help="Oldest and newest opset read.")
@click.option("--onnx-element-types", "question", flag_value="types", help="Types that verdicts hold for.")
@click.option("--onnx-operators", "question", flag_value="operators", help="Operators, one a line.")
@click.option("--vnnlib-versions", "question", flag_value="versions", help="Oldest and newest version read.")
@click.option("--hidden-node-theories", "question", flag_value="hidden", help="Theories of hidden nodes.")
@click.option(
    "--multiple-input-output-theories", "question", flag_value="ends", help="Theories of inputs and outputs."
)
@click.option(
    "--multiple-network-theories", "question", flag_value="networks", help="Theories of several networks."
)
@click.option(
    "--multiple-node-comparison-theories",
    "question",
    flag_value="comparisons",
    help="Theories of comparisons.",
)
@click.option(
    "--arithmetic-complexity-theories", "question", flag_value="arithmetic", help="Theories of arithmetic."
)
@click.option(
    "--optimised-disjunctive-reasoning",
    "question",
    flag_value="disjunctions",
    help="Whether `or` is no burden.",
)
@click.option("--serialise-assignments", "question", flag_value="serialise", help="Whether verify has it.")
@guarded
def command(question: str | None) -> Exit:
    """Answer one question of the VNN-LIB standard about what can be verified.

    Verdicts hold for float32 execution. Queries over `real` are answered for float32 execution too.
    """
    if question is None:
        raise PropertyError("ask one question, such as sutura supports --onnx-operators; --help lists them")
    click.echo("\n".join(ANSWERS[question]()))
    return Exit.HOLDS


def _always(*lines: str) -> Callable[[], tuple[str, ...]]:
    return lambda: lines


ANSWERS: dict[str, Callable[[], Sequence[str]]] = {
    "opsets": _always(str(OLDEST_OPSET), str(NEWEST_OPSET)),
    "types": _always("float32", "real"),
    "operators": lambda: sorted(OPERATORS),
    "versions": _always("1.0", "2.0"),
    "hidden": _always("NH"),
    "ends": _always("SIO"),
    "networks": _always("SNET"),
    "comparisons": _always("SNC"),
    "arithmetic": _always("BND", "OUTC"),
    "disjunctions": _always("true"),
    "serialise": _always("true"),
}
"""Question -> the lines of its answer."""
