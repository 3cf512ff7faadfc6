"""What is in an ONNX file, and what of it is supported: told even of networks that cannot be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sutura.errors import NetworkError
from sutura.network.budget import shown
from sutura.network.cost import macs, parameters
from sutura.network.graph import Shape
from sutura.network.onnx_file import open_file
from sutura.network.onnx_read import Step, settled
from sutura.network.onnx_value import Activation, Value


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node as the file has it; shapes are those of one sample, None where unknown or constant.

    `supported` is false where `reason` says why, and also where nothing can be said because an input comes
    from an unsupported node (`reason` then says so). `macs` estimates multiply-accumulate steps a sample.
    """

    name: str
    operator: str
    inputs: tuple[Shape | None, ...]
    output: Shape | None
    supported: bool
    reason: str
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """A whole file; `parameters` counts numbers stored, `macs` estimates the work of one sample.

    Both count supported nodes alone, so they are lower bounds where `supported` is false.
    """

    name: str
    sha256: str
    opset: int
    input: str
    input_shape: Shape
    output: str
    output_shape: Shape | None
    nodes: tuple[NodeReport, ...]

    @property
    def supported(self) -> bool:
        """Whether `parse_onnx` reads every node."""
        return all(node.supported for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Float32 numbers in the weights of the supported nodes."""
        return sum(node.parameters for node in self.nodes)

    @property
    def macs(self) -> int:
        """Estimated multiply-accumulate steps of the supported nodes, for one sample."""
        return sum(node.macs for node in self.nodes)


def inspect_onnx(data: bytes, name: str) -> Inspection:
    """Look at every node that the output needs, without running anything.

    Unsupported nodes are reported, never raised. Raises NetworkError where the file is not an ONNX graph with
    one float32 input and one output, or passes a budget (see `parse_onnx`).
    """
    try:
        file = open_file(data)
        file, steps = settled(file)
    except NetworkError as error:
        raise NetworkError(f"{shown(name)}: {error}") from None
    outputs = {step.statement.outputs[0]: step.value for step in steps if step.statement.outputs}
    return Inspection(
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        opset=file.opset,
        input=file.input,
        input_shape=file.sample,
        output=file.output,
        output_shape=_shape(outputs.get(file.output)),
        nodes=tuple(_report(step) for step in steps),
    )


def _report(step: Step) -> NodeReport:
    known = step.value is not None
    return NodeReport(
        name=step.statement.name,
        operator=step.statement.operator,
        inputs=tuple(_shape(value) for value in step.inputs),
        output=_shape(step.value),
        supported=known,
        reason=step.reason or ("" if known else "not examined: an input comes from an unsupported node"),
        parameters=sum(parameters(node.op) for node in step.nodes),
        macs=sum(macs(node.op, step.shapes[node.output]) for node in step.nodes),
    )


def _shape(value: Value | None) -> Shape | None:
    return value.shape if isinstance(value, Activation) else None
