"""The Open Inference Protocol, version 2 (KServe): JSON to a guarded network's input, answers to JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
from jaxtyping import Float32

from sutura.errors import MismatchError
from sutura.network.budget import shown
from sutura.runtime.guard import Answer, Guard

TYPE = "FP32"
MOST_ID = 256


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """An inference request: the batch, and the caller's id (None where there is none)."""

    x: Float32[np.ndarray, "batch *input_shape"]
    id: str | None


def parse_request(body: bytes, guard: Guard) -> Request:
    """The request in a JSON body, for the input and output of a guarded network; batches of any length.

    Numbers are read as float64 and rounded to float32. Raises MismatchError in one line for anything else.
    """
    try:
        document: Any = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"the body is not JSON: {shown(str(error))}") from None
    if not isinstance(document, dict):
        raise MismatchError('the body must be a JSON object with "inputs"')
    document = cast("dict[str, Any]", document)
    tensor = _only(document.get("inputs"), "inputs", guard.names[0])
    if tensor.get("datatype") != TYPE:
        raise MismatchError(f"the datatype is {shown(str(tensor.get('datatype')))}; it must be {TYPE}")
    dims = _dims(tensor.get("shape"), guard.input_shape)
    name = document.get("id")
    if name is not None and (not isinstance(name, str) or len(name) > MOST_ID):
        raise MismatchError(f"the id must be text of at most {MOST_ID} characters")
    if document.get("outputs") is not None:
        _only(document["outputs"], "outputs", guard.names[1])
    return Request(_numbers(tensor.get("data"), dims), name)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _only(given: object, key: str, name: str) -> dict[str, Any]:
    tensors = cast("list[Any]", given) if isinstance(given, list) else []
    if len(tensors) != 1 or not isinstance(tensors[0], dict) or tensors[0].get("name") != name:
        raise MismatchError(f'"{key}" must be a list of one tensor, whose name is {shown(name)}')
    return cast("dict[str, Any]", tensors[0])


def _dims(given: object, shape: Sequence[int]) -> tuple[int, ...]:
    dims = tuple(cast("list[Any]", given)) if isinstance(given, list) else ()
    good = all(type(n) is int and n > 0 for n in dims)
    if not good or dims[1:] != tuple(shape) or not dims:
        raise MismatchError(
            f'"shape" must be [batch, {", ".join(map(str, shape))}] with a batch of 1 or more'
        )
    return dims


def _numbers(data: object, dims: tuple[int, ...]) -> Float32[np.ndarray, "batch *input_shape"]:
    """Numbers in row-major order, flat or nested as the shape says."""
    if not isinstance(data, list):
        raise MismatchError('"data" must be a list of numbers')
    items: list[Any] = data
    nested = bool(items) and isinstance(items[0], list)
    for length in dims[1:] if nested else ():
        if not all(isinstance(item, list) and len(item) == length for item in items):
            raise MismatchError('"data" is nested otherwise than "shape" says')
        items = [value for item in items for value in item]
    if len(items) != math.prod(dims):
        raise MismatchError(f'"data" holds {len(items)} numbers; "shape" asks for {math.prod(dims)}')
    if not all(type(v) is float or type(v) is int for v in items):
        raise MismatchError('"data" holds something that is no number')
    try:
        with np.errstate(over="ignore"):
            return np.array(items, dtype=np.float64).astype(np.float32).reshape(dims)
    except OverflowError:
        raise MismatchError('"data" holds a number beyond the float32 range') from None


def response(answer: Answer, metadata: Mapping[str, Any], request: Request) -> bytes:
    """The response body; its parameters say how many samples were answered by the fallback, and which."""
    fallen = np.flatnonzero(answer.fallback).tolist()
    document: dict[str, Any] = {
        "model_name": metadata["name"],
        "model_version": metadata["versions"][0],
        "parameters": {"fallbacks": len(fallen), "fallback_samples": ",".join(map(str, fallen))},
        "outputs": [
            {
                "name": metadata["outputs"][0]["name"],
                "datatype": TYPE,
                "shape": list(answer.outputs.shape),
                "data": [float(v) for v in answer.outputs.reshape(-1)],
            }
        ],
    }
    if request.id is not None:
        document["id"] = request.id
    return json.dumps(document, allow_nan=False).encode()


def model_metadata(guard: Guard, model: str, version: str) -> Mapping[str, Any]:
    """What the protocol tells of a model; -1 is the batch axis."""
    return {
        "name": model,
        "versions": [version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": guard.names[0], "datatype": TYPE, "shape": [-1, *guard.input_shape]}],
        "outputs": [{"name": guard.names[1], "datatype": TYPE, "shape": [-1, *guard.output_shape]}],
    }
