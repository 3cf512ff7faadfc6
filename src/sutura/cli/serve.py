"""`sutura serve`: a repaired network over HTTP, each answer checked by the guard."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sutura.cli import options
from sutura.cli.console import Exit, guarded, messages, plain, print_json
from sutura.errors import MismatchError, MissingExtraError, NetworkError, OutputError
from sutura.network.budget import shown
from sutura.runtime.guard import Fallback, Guard, GuardConfig

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn

CONCURRENT = 64
WAITING = 2048
GRACE = 10
"""Requests worked on at once (more are answered 503), callers that may wait for the server to start, and
seconds that requests are given to end at a stop."""

MEBI = 2**20


@click.command("serve")
@click.argument("network", type=click.Path(path_type=Path))
@click.argument("properties", type=click.Path(path_type=Path), nargs=-1)
@click.option("--certificate", type=click.Path(path_type=Path), help="By default NETWORK's .cert.json.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(min=0, max=65535),
    default=8080,
    show_default=True,
    help="0: any that is free.",
)
@click.option("--name", help="The model's name in addresses; by default NETWORK's without suffix.")
@click.option("--safe-output", metavar="Y_0,Y_1,...", help="What answers instead; by default an error does.")
@click.option(
    "--inputs",
    type=click.Choice(["any", "certified"]),
    default="any",
    show_default=True,
    help="Whether inputs outside every certified box reach the network.",
)
@click.option("--stop", is_flag=True, help="After a breach nothing reaches the network any more.")
@click.option("--breach-log", type=click.Path(path_type=Path), help="File that gets a line for every breach.")
@click.option("--no-check", is_flag=True, help="Compare digests only; do not prove the certificate again.")
@click.option(
    "--largest-body",
    type=click.IntRange(min=1, max=1024),
    default=16,
    show_default=True,
    help="Most MiB of a request.",
)
@options.as_json
@guarded
def command(
    network: Path,
    properties: tuple[Path, ...],
    certificate: Path | None,
    host: str,
    port: int,
    name: str | None,
    safe_output: str | None,
    inputs: Any,
    stop: bool,
    breach_log: Path | None,
    no_check: bool,
    largest_body: int,
    as_json: bool,
) -> Exit:
    """Serve a repaired network, guarded: sutura serve fixed.onnx [PROP.vnnlib...]

    Properties not named are looked for beside the certificate. The Open Inference Protocol (KServe version 2)
    is at /v2, Prometheus metrics are at /metrics and the same counters as JSON at /guard. --json prints the
    address as one JSON object. Ends with code 0 when asked to stop (SIGTERM or Ctrl-C), requests finished.
    """
    if network.suffix.lower() != ".onnx":
        raise NetworkError(f"{shown(network.name)} is no .onnx file; serve what sutura repair wrote")
    beside = network.with_name(f"{network.stem}.cert.json")
    config = GuardConfig(inputs=inputs, stop=stop, log=breach_log, check=not no_check)
    guard = Guard(
        network, certificate or beside, properties or None, fallback=_fallback(safe_output), config=config
    )
    model = name or network.stem
    server, listening = _server(guard, model, (host, port), largest_body * MEBI)
    address = listening.getsockname()
    url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
    if as_json:
        print_json({"schema": "sutura/serve", "version": 1, "url": url, "model": model, "pid": os.getpid()})
    else:
        messages().print(f"serving {plain(network.name)} at {plain(f'{url}/v2/models/{model}')}")
    # uvicorn finishes what is under way and then raises the signal again, for these to hear.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _heard)
    server.run(sockets=[listening])
    return Exit.HOLDS


def _fallback(text: str | None) -> Fallback:
    if text is None:
        return "raise"
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise MismatchError(
            f"--safe-output {shown(text)} must be numbers with commas, such as 1,0,0"
        ) from None


def _server(
    guard: Guard, model: str, place: tuple[str, int], largest_body: int
) -> tuple[uvicorn.Server, socket.socket]:
    """The server and the socket it will listen at; callers queue there from now on."""
    from sutura.runtime.service import ServiceConfig, service

    app = service(guard, ServiceConfig(model=model, largest_body=largest_body))
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("serving needs the package uvicorn; pip install 'sutura[serve]'") from None
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=CONCURRENT,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    host, port = place
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OutputError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(WAITING)
    except OSError as error:
        listening.close()
        raise OutputError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None
    return uvicorn.Server(config), listening


def _heard(number: int, frame: FrameType | None) -> None:
    """A signal that has already been obeyed."""
