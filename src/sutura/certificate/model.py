"""The exported network as a graph that can be followed: who produces what, and which constants are fixed.

What is checked here once lets every later step follow names blindly: each name is defined exactly once,
before it is used; no constant can be overridden from outside; there is one float32 input with a batch axis,
and one output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.wire import FLOAT, Array, Attribute, Branch, Model, Node, Port, read_model


@dataclass(frozen=True, slots=True)
class Switch:
    """The output is what the nodes compute where `condition` is true, else the value `otherwise`."""

    condition: str
    otherwise: str


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network: `sample` is the shape of one input, without batch axis; `producer` is by name.

    Where the output comes from an If, `nodes` and `output` are as if its first branch were always taken, and
    so on inside of it; `switches` say, from the outside in, when it is not.
    """

    input: str
    sample: tuple[int, ...]
    output: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    producer: Mapping[str, Node]
    switches: tuple[Switch, ...] = ()

    @property
    def inputs(self) -> int:
        """How many numbers one input holds."""
        return math.prod(self.sample)


def open_exported(data: bytes) -> Exported:
    """The graph in the bytes of an exported ONNX file; CertificateError where a rule above is broken."""
    model = read_model(data)
    _versions(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise CertificateError(
            f"the network has {len(model.inputs)} inputs and {len(model.outputs)} outputs; want 1, 1"
        )
    (port,), (result,) = model.inputs, model.outputs
    sample = _sample(port)
    if result.kind != FLOAT:
        raise CertificateError(f"the output {brief(result.name)} is not float32")
    if port.name in model.constants or not port.name:
        raise CertificateError(
            f"the input {brief(port.name)} is a constant too, so that a caller could override it"
        )
    _define(model.nodes, {port.name, *model.constants}, set(), model)
    producer = _producers(model.nodes)
    if result.name not in producer:
        raise CertificateError(f"the output {brief(result.name)} is not computed by any node")
    nodes, output, constants, switches = model.nodes, result.name, dict(model.constants), ()
    while producer[output].op == "If":
        nodes, then, switch = _without_switch(nodes, producer[output], output)
        output, constants = then.output, constants | dict(then.constants)
        switches = (*switches, switch)
        producer = _producers(nodes)
    return Exported(port.name, sample, output, nodes, constants, producer, switches)


def attributes(node: Node, **defaults: Attribute) -> tuple[Attribute, ...]:
    """The attributes of a node in the order of `defaults`, which also says what they are if left out.

    Raises CertificateError where the node has any other attribute, or one of another type.
    """
    extra = set(node.attributes) - set(defaults)
    if extra:
        raise CertificateError(f"{where(node)}: attribute {brief(min(extra))} is not expected here")
    found = tuple(node.attributes.get(name, default) for name, default in defaults.items())
    for value, (name, default) in zip(found, defaults.items(), strict=True):
        if type(value) is not type(default):
            raise CertificateError(f"{where(node)}: attribute {name} has the wrong type")
    return found


def where(node: Node) -> str:
    """A node as it is called in errors."""
    return f"node {brief(node.name or '/'.join(node.outputs))} ({node.op[:30]})"


def _versions(model: Model) -> None:
    if model.ir_version > IR_VERSION or model.ir_version < 4:
        raise CertificateError(
            f"the network file has IR version {model.ir_version}; 4 to {IR_VERSION} are read"
        )
    for domain, version in model.opsets.items():
        if domain not in OPSETS or version not in OPSETS[domain]:
            raise CertificateError(f"operator set {brief(domain or 'ai.onnx')} {version} is not read here")
    if "" not in model.opsets:
        raise CertificateError("the network file does not import the operator set ai.onnx")


def _sample(port: Port) -> tuple[int, ...]:
    sample = port.shape[1:]
    if port.kind != FLOAT or len(port.shape) < 2 or port.shape[0] not in {None, 1}:
        raise CertificateError(f"the input {brief(port.name)} is not float32 with a batch axis and more")
    sizes = [size for size in sample if size is not None and size > 0]
    if len(sizes) != len(sample) or math.prod(sizes) > MAX_INPUTS:
        raise CertificateError(
            f"the input {brief(port.name)} has shape {brief(port.shape)}; sizes must be known"
        )
    return tuple(sizes)


def _define(nodes: Sequence[Node], known: set[str], gone: set[str], model: Model) -> None:
    """Adds the names that nodes define to the known ones; those of a branch, its constants among them, are
    known inside of it alone.

    No name stands for two values, not even in different branches.
    """
    for node in nodes:
        if node.domain not in OPSETS or node.domain not in model.opsets:
            raise CertificateError(f"{where(node)} is of an operator set that is not imported")
        for name in node.inputs:
            if name and name not in known:
                raise CertificateError(f"{where(node)} reads {brief(name)}, which nothing before it defines")
        for value in node.attributes.values():
            if isinstance(value, Branch):
                _define_branch(node, value, known, gone, model)
        for name in node.outputs:
            if name in known or name in gone:
                raise CertificateError(f"{where(node)} defines {brief(name)} a second time")
            if name:
                known.add(name)


def _define_branch(node: Node, branch: Branch, known: set[str], gone: set[str], model: Model) -> None:
    if node.op != "If" or node.domain:
        raise CertificateError(f"{where(node)} has a branch; only If may")
    again = set(branch.constants) & (known | gone)
    if again:
        raise CertificateError(f"{where(node)}: a branch defines {brief(min(again))} a second time")
    known |= set(branch.constants)
    _define(branch.nodes, known, gone, model)
    inner = {name for part in branch.nodes for name in part.outputs if name}
    if branch.output not in inner:
        raise CertificateError(f"{where(node)}: a branch gives {brief(branch.output)}, which is not its own")
    inner |= set(branch.constants)
    known -= inner
    gone |= inner


def _producers(nodes: Sequence[Node]) -> dict[str, Node]:
    return {name: node for node in nodes for name in node.outputs if name}


def _without_switch(
    nodes: tuple[Node, ...], last: Node, output: str
) -> tuple[tuple[Node, ...], Branch, Switch]:
    """Puts the nodes of the first branch in the place of the If that gives the output."""
    then, other = last.attributes.get("then_branch"), last.attributes.get("else_branch")
    if not isinstance(then, Branch) or not isinstance(other, Branch):
        raise CertificateError(f"{where(last)} does not have two branches")
    if len(last.attributes) != 2 or last.domain:
        raise CertificateError(f"{where(last)} does not have two branches")
    if len(last.inputs) != 1 or last.outputs != (output,) or len(other.nodes) != 1 or other.constants:
        raise CertificateError(f"{where(last)}: its second branch must hand over one value untouched")
    (identity,) = other.nodes
    if identity.op != "Identity" or identity.domain or identity.attributes or len(identity.inputs) != 1:
        raise CertificateError(f"{where(last)}: its second branch must hand over one value untouched")
    at = next(number for number, node in enumerate(nodes) if node is last)
    switch = Switch(last.inputs[0], identity.inputs[0])
    return (*nodes[:at], *then.nodes, *nodes[at + 1 :]), then, switch


IR_VERSION = 10
OPSETS = {"": (17,), "ai.onnx.ml": (1, 2, 3)}
MAX_INPUTS = 1 << 24
