"""A guarded network over HTTP: the Open Inference Protocol, health, and metrics, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sutura.errors import GuardError, MismatchError, MissingExtraError, SuturaError
from sutura.runtime.guard import Guard
from sutura.runtime.inference_protocol import model_metadata, parse_request, response
from sutura.runtime.metrics import exposition

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST_BODY = 16 * 2**20
SLOWEST_BODY = 30.0
"""Most bytes of a request's body, and seconds that it may take to arrive."""


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The name and version of the model in addresses, and the most bytes of a request's body."""

    model: str = "model"
    version: str = "1"
    largest_body: int = LARGEST_BODY


class TooLargeError(SuturaError):
    """A body beyond the limit."""


class TooSlowError(SuturaError):
    """A body that does not arrive in time."""


class MissingModelError(SuturaError):
    """An address that names no model of this service."""


class StoppedError(SuturaError):
    """A breach has stopped the network."""


def service(guard: Guard, config: ServiceConfig | None = None) -> Starlette:
    """The ASGI application. Errors are JSON objects {"error": "one line"}: 400 for what is malformed, 404,
    408, 413, 422 where the guard does not hand an answer on, 503 once a breach has stopped the network.

    Raises MissingExtraError where starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError("serving needs the package starlette; pip install 'sutura[serve]'") from None
    doors = _Doors(guard, config or ServiceConfig())
    at_model = "/v2/models/{model}"
    at_version = at_model + "/versions/{version}"
    routes = [
        Route("/metrics", doors.metrics),
        Route("/guard", doors.counters),
        Route("/v2", doors.server),
        Route("/v2/health/live", doors.live),
        Route("/v2/health/ready", doors.ready),
        *(Route(at, doors.model) for at in (at_model, at_version)),
        *(Route(f"{at}/ready", doors.ready) for at in (at_model, at_version)),
        *(Route(f"{at}/infer", doors.infer, methods=["POST"]) for at in (at_model, at_version)),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={SuturaError: _refused, HTTPException: _refused, Exception: _refused},
    )


@dataclass(frozen=True, slots=True)
class _Doors:
    """What each address answers."""

    guard: Guard
    config: ServiceConfig

    async def metrics(self, _: Request) -> Response:
        text, kind = exposition(self.guard)
        return _reply(text, kind=kind)

    async def counters(self, _: Request) -> Response:
        return _json(self.guard.document())

    async def server(self, _: Request) -> Response:
        return _json({"name": "sutura", "version": version("sutura"), "extensions": []})

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        self._named(request)
        return _json({"ready": self.guard.ready}, 200 if self.guard.ready else 503)

    async def model(self, request: Request) -> Response:
        self._named(request)
        return _json(dict(model_metadata(self.guard, self.config.model, self.config.version)))

    async def infer(self, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        self._named(request)
        body = await _body(request, self.config.largest_body)
        return _reply(await run_in_threadpool(self._inferred, body))

    def _inferred(self, body: bytes) -> bytes:
        asked = parse_request(body, self.guard)
        try:
            answer = self.guard.answer(asked.x)
        except GuardError as error:
            raise error if self.guard.ready else StoppedError(str(error)) from None
        return response(answer, model_metadata(self.guard, self.config.model, self.config.version), asked)

    def _named(self, request: Request) -> None:
        """Raise MissingModelError where the address names another model or version."""
        own = {"model": self.config.model, "version": self.config.version}
        if any(request.path_params.get(key, value) != value for key, value in own.items()):
            raise MissingModelError(
                f"no such model; this service has {own['model']} version {own['version']}"
            )


async def _body(request: Request, most: int) -> bytes:
    """The body, read no further than the limit."""
    from starlette.requests import ClientDisconnect

    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise TooLargeError(f"the body has more than {most:,} bytes; send smaller batches")
                parts.append(part)
    except TimeoutError:
        raise TooSlowError(f"the body did not arrive within {SLOWEST_BODY:g} s") from None
    except ClientDisconnect:
        raise MismatchError("the request ended before its body did") from None
    return b"".join(parts)


def _reply(body: bytes, status: int = 200, kind: str = "application/json") -> Response:
    from starlette.responses import Response

    return Response(body, status, media_type=None, headers={"content-type": kind})


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return _reply(json.dumps(value, allow_nan=False).encode(), status)


async def _refused(_: Request, error: Exception) -> Response:
    """Every error as one line of JSON; what went wrong inside is not told outside."""
    from starlette.exceptions import HTTPException

    if isinstance(error, HTTPException):
        return _json({"error": error.detail}, error.status_code)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    text = " ".join(str(error).split()) if isinstance(error, SuturaError) else "internal error"
    return _json({"error": text}, status)


STATUS: dict[type[Exception], int] = {
    TooLargeError: 413,
    TooSlowError: 408,
    StoppedError: 503,
    MissingModelError: 404,
    MismatchError: 400,
    GuardError: 422,
}
"""Error -> HTTP status."""
