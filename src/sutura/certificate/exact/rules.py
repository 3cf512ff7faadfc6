"""ONNX nodes to layers: one rule an operator, in the table RULES; what has no rule has no bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

from .gates import DEFAULTS, Gates, constant, must
from .graph import BOOL, FLOAT, INT64, Graph, Node, Shape
from .layers import Bend, Draft, Linear, clamp, leaky, linear_layer, logistic, settings, spread, tanh
from .ticks import ENDLESS, ONE, Ints, ticks, want


def compile_network(g: Graph, gates: Gates) -> tuple[Sequence[Linear | Bend], int]:
    """The layers and the value that holds the raw output; refused where a node has no rule."""
    wanted, needed = {gates.raw}, list[Node]()
    for node in reversed(g.nodes):
        if not wanted.isdisjoint(node.outputs):
            needed.append(node)
            wanted.update(node.inputs[2:] if node.op == "Where" else node.inputs)
    reads = [name for node in needed for name in node.inputs] + [gates.raw]
    draft = Draft(g, gates, reads, {g.input: (0, g.sample)}, [])
    for node in reversed(needed):
        known = node.op in RULES and not node.domain
        want(known, f"{node.op} has no rule in the exact checker, but a leaf needs one")
        RULES[node.op](draft, node)
    return draft.layers, draft.values[gates.raw][0]


def on_matmul(draft: Draft, node: Node) -> None:
    """MatMul(x, W), and Gemm(x, W, b) with W transposed or not."""
    (source, shape), weight = draft.values[node.inputs[0]], draft.operand(node, 1)
    *rest, turned = settings(node, DEFAULTS["Gemm"]) if node.op == "Gemm" else (ONE, ONE, 0, 0)
    plain = rest == [ONE, ONE, 0] and len(shape) == 1 and len(weight.shape) == 2
    want(plain and (node.op == "Gemm" or not node.attributes), f"{node.op} has a form without a rule")
    n, outputs = weight.shape[::-1] if turned else weight.shape
    want(n == shape[0], f"{node.op} has a weight of {n} rows for {shape[0]} inputs")
    v = weight.values
    rows = [(None, v[i * n : (i + 1) * n] if turned else v[i::outputs]) for i in range(outputs)]
    draft.define(node, linear_layer((source,), rows, draft.bias(node, outputs), n + 1), (outputs,))


def windows(node: Node, shape: Shape, kernel: Shape) -> tuple[Shape, Shape, list[list[tuple[int, int]]]]:
    """(groups, whether padding counts, taps), output space, and of each window (tap, place) of its inputs."""
    ones, none = ("ints", (1,) * len(shape)), ("i", 0)
    usual = {
        "auto_pad": ("s", b"NOTSET"), "kernel_shape": ("ints", kernel), "strides": ones, "dilations": ones,
        "pads": ("ints", (0, 0) * len(shape)), "group": ("i", 1), "count_include_pad": none,
        "ceil_mode": none, "storage_order": none,
    }  # fmt: skip
    pad, size, strides, steps, pads, groups, padded, *others = settings(node, usual)
    plain = {*node.attributes} <= WINDOWED[node.op] and pad == b"NOTSET" and not any(others)
    plain = plain and kernel in {(), size} and min(*size, *strides, *steps) > 0 and min(pads) >= 0
    want(plain, f"{node.op} has windows that have no rule here")
    space, inside = list[int](), [[(0, 0)]]
    before, after = pads[: len(shape)], pads[len(shape) :]
    for n, k, s, d, b, e in zip(shape, size, strides, steps, before, after, strict=True):
        space.append((n + b + e - (k - 1) * d - 1) // s + 1)
        want(space[-1] > 0 and prod((*space, *size)) <= 1 << 22, f"{node.op} is too large for this checker")
        starts = (at * s - b for at in range(space[-1]))
        line = [[(t, at + t * d) for t in range(k) if 0 <= at + t * d < n] for at in starts]
        inside = [
            [(i * k + t, j * n + at) for i, j in one for t, at in taps] for one in inside for taps in line
        ]
    return (groups, padded, prod(size)), tuple(space), inside


def on_convolution(draft: Draft, node: Node) -> None:
    """Conv with explicit padding, as a sparse matrix."""
    (source, shape), weight = draft.values[node.inputs[0]], draft.operand(node, 1)
    outputs, depth, *kernel = weight.shape
    (groups, _, _), space, inside = windows(node, shape[1:], tuple(kernel))
    fits = groups > 0 and depth * groups == shape[0] and outputs % groups == 0
    fits = fits and prod((outputs, depth, len(inside), *kernel)) <= 1 << 23
    want(fits, "Conv does not fit its input, or is too large")
    rows: list[tuple[Shape | None, Ints]] = []
    for o, window in product(range(outputs), inside):
        first, taps = o // (outputs // groups) * depth, dict[int, int]()
        for c, (number, at) in product(range(depth), window):
            taps[(first + c) * prod(shape[1:]) + at] = weight.values[(o * depth + c) * prod(kernel) + number]
        rows.append((tuple(taps), tuple(taps.values())))
    bias = [b for b in draft.bias(node, outputs) for _ in inside]
    draft.define(node, linear_layer((source,), rows, bias, depth * prod(kernel) + 1), (outputs, *space))


def on_pool(draft: Draft, node: Node) -> None:
    """MaxPool, AveragePool and GlobalAveragePool; 1 / n is cut after 40 bits, which counts as a rounding."""
    source, shape = draft.values[node.inputs[0]]
    if node.op == "GlobalAveragePool":
        settings(node, {})
        node = node._replace(op="AveragePool", attributes={"kernel_shape": ("ints", shape[1:])})
    (_, padded, most), space, inside = windows(node, shape[1:], ())
    want(all(inside) and most * len(inside) * shape[0] <= 1 << 22, f"{node.op} has windows without a rule")
    size = prod(shape[1:])
    picked = [tuple(c * size + at for _, at in window) for c in range(shape[0]) for window in inside]
    if node.op == "MaxPool":
        layer = Bend((source,), clamp(-ENDLESS, ENDLESS), None, windows=picked)
    else:
        rows = [(at, ((1 << 40) // (most if padded else len(at)) << 109,) * len(at)) for at in picked]
        layer = linear_layer((source,), rows, [0] * len(rows), most + 4)
    draft.define(node, layer, (shape[0], *space))


def on_arithmetic(draft: Draft, node: Node) -> None:
    """Add, Sub and Mul with a constant; Add and Sub of two values. A bias joins the product before it."""
    want(len(node.inputs) == 2 and not node.attributes, f"{node.op} is not that of two values")
    fixed = [name in draft.g.constants for name in node.inputs]
    at, sign = int(fixed[1]), -1 if node.op == "Sub" else 1
    source, shape = draft.values[node.inputs[1 - at if any(fixed) else 0]]
    size = prod(shape)
    if not any(fixed):
        right, other = draft.values[node.inputs[1]]
        want(shape == other and node.op != "Mul", f"{node.op} of two values has no rule here")
        pairs = [((i, i + size), (ONE, sign * ONE)) for i in range(size)]
        draft.define(node, linear_layer((source, right), pairs, [0] * size, 0), shape)
        return
    value = spread(draft.operand(node, at), shape)
    factor = value if node.op == "Mul" else [ONE if at else sign * ONE] * size
    shift = [0] * size if node.op == "Mul" else [sign * v if at else v for v in value]
    last = draft.layers[-1] if source == len(draft.layers) > 0 else None
    alone = draft.reads.count(node.inputs[1 - at]) == 1 and {*factor} == {ONE}
    if isinstance(last, Linear) and alone and last.roundings and not any(last.bias):
        draft.layers.pop()
        draft.define(node, last._replace(bias=shift), shape)
    else:
        rows = [((i,), (v,)) for i, v in enumerate(factor)]
        draft.define(node, linear_layer((source,), rows, shift, 0), shape)


def on_shape(draft: Draft, node: Node) -> None:
    """Flatten, and Reshape that keeps the batch axis: another shape of the same value."""
    number, shape = draft.values[node.inputs[0]]
    batch, target = 0, [prod(shape)]
    (setting,) = settings(node, DEFAULTS[node.op])
    want(setting == (node.op == "Flatten"), f"{node.op} has a form without a rule")
    if node.op == "Reshape":
        batch, *target = constant(draft.g, node.inputs[1], INT64, None).values
        target = [shape[i] if size == 0 else size for i, size in enumerate(target)]
    if target.count(-1) == 1:
        target[target.index(-1)] = prod(shape) // max(1, -prod(target))
    want(batch in {-1, 0, 1} and min(target) > 0 and prod(target) == prod(shape), "Reshape does not fit")
    draft.values[node.outputs[0]] = number, tuple(target)


def on_bend(draft: Draft, node: Node) -> None:
    """Relu, LeakyRelu, Clip, Sigmoid and Tanh."""
    source, shape = draft.values[node.inputs[0]]
    if node.op == "LeakyRelu":
        (slope,) = settings(node, {"alpha": ("f", ticks(0x3C23D70A))})
        want(0 <= slope <= ONE, "LeakyRelu has a slope that has no rule here")
        bend = Bend((source,), leaky(slope), (0,), True)
    elif node.op in CURVES:
        settings(node, {})
        bend = Bend((source,), CURVES[node.op], None, stray=STRAY)
    else:
        want(not node.attributes and len(node.inputs) <= 3, f"{node.op} has a form without a rule")
        ends = {1: 0 if node.op == "Relu" else -ENDLESS, 2: ENDLESS}
        for at in range(1, len(node.inputs)):
            if node.inputs[at]:
                (ends[at],) = draft.operand(node, at).values
        low, high = ends.values()
        want(low <= high, "Clip has its ends crossed")
        bend = Bend((source,), clamp(low, high), (low, high))
    draft.define(node, bend, shape)


def on_pin(draft: Draft, node: Node) -> None:
    """A neuron gate: Where(mask[row], value[row], x)."""
    pattern = ("Where", ("Gather", "mask", "row"), ("Gather", "value", "row"), "x")
    found = must(draft.g, node.outputs[0], pattern, {"row": draft.gates.row})
    source, shape = draft.values[found["x"]]
    rows, size = draft.gates.rows, prod(shape)
    used = constant(draft.g, found["mask"], BOOL, rows, *shape).values
    held = constant(draft.g, found["value"], FLOAT, rows, *shape).values
    pins = [v if u else None for u, v in zip(used, held, strict=True)]
    by_row = [pins[r * size : (r + 1) * size] for r in range(rows)]
    draft.define(node, Bend((source,), clamp(-ENDLESS, ENDLESS), (), pins=by_row), shape)


STRAY = 4 * ONE // 10**7 + (ONE >> 80)  # how far a runtime's curve may err, and the one computed here
CURVES = {"Sigmoid": logistic, "Tanh": tanh}
WINDOWED = {
    "Conv": {"auto_pad", "kernel_shape", "strides", "pads", "dilations", "group"},
    "MaxPool": {"auto_pad", "kernel_shape", "strides", "pads", "dilations", "ceil_mode", "storage_order"},
    "AveragePool": {"auto_pad", "kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad"},
}
RULES: dict[str, Callable[[Draft, Node], None]] = {
    **dict.fromkeys(("MatMul", "Gemm"), on_matmul),
    **dict.fromkeys(("Add", "Sub", "Mul"), on_arithmetic),
    **dict.fromkeys(("Flatten", "Reshape"), on_shape),
    **dict.fromkeys(("Relu", "LeakyRelu", "Clip", *CURVES), on_bend),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), on_pool),
    "Conv": on_convolution,
    "Where": on_pin,
}
