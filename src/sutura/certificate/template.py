"""Matching an exported graph against a template: what makes a value, and which constants it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.model import Exported, attributes, where
from sutura.certificate.wire import Array, Node


def inputs(node: Node, count: int) -> tuple[str, ...]:
    if len(node.inputs) != count or not all(node.inputs):
        raise CertificateError(f"{where(node)} has {len(node.inputs)} inputs, not {count}")
    return node.inputs


def produced(exported: Exported, value: str, op: str) -> Node:
    node = exported.producer.get(value)
    if node is None or node.op != op or node.domain or node.outputs != (value,):
        found = where(node) if node else "no node"
        raise CertificateError(f"{brief(value)} must come from {op}, but comes from {found}")
    return node


def is_made_by(exported: Exported, value: str, op: str) -> bool:
    node = exported.producer.get(value)
    return node is not None and node.op == op and not node.domain


def constant(exported: Exported, name: str, shape: tuple[int | None, ...]) -> Array:
    value = exported.constants.get(name)
    if value is None:
        raise CertificateError(f"{brief(name)} is no constant")
    value = shaped(value, np.float32, shape, brief(name))
    if not np.isfinite(value).all():
        raise CertificateError(f"{brief(name)} holds numbers that are not finite")
    return value


def shaped(value: Array, dtype: Any, shape: tuple[int | None, ...], name: str) -> Array:
    fits = len(shape) == value.ndim and all(
        want in {None, got} for want, got in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise CertificateError(f"{name} has shape {value.shape}, or is not float32")
    return value


def row_of(exported: Exported, value: str, row: str | None) -> str:
    """The name of the constant table whose row Gather(table, row) takes."""
    node = produced(exported, value, "Gather")
    table, index = inputs(node, 2)
    if attributes(node, axis=0) != (0,) or index != row or table not in exported.constants:
        raise CertificateError(
            f"{where(node)} does not take the row of the dispatch tree from a constant table"
        )
    return table


def is_half(value: Array | None) -> bool:
    return (
        value is not None and value.dtype == np.float32 and value.shape in {(), (1,)} and value.item() == 0.5
    )


def is_zero(value: Array | None) -> bool:
    return value is not None and value.dtype == np.int64 and value.shape == () and value.item() == 0


def is_scalar(value: Array | None, wanted: int) -> bool:
    return value is not None and value.dtype == np.int64 and value.shape == (1,) and value.item() == wanted
