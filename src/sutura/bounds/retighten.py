"""Bounds of the open neurons of a subproblem, from its splits and from what is to be refuted.

beta-CROWN keeps the neurons' bounds of the whole box in every subproblem. Here they are improved now and
then, and all subproblems below inherit them. Only points that break the property are of interest: there
`row . output <= limit` holds, and a multiple of that is added to the row of each neuron (INVPROP, Kotha et
al. 2023), with slopes and multipliers of the neuron's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from sutura.bounds.ascent import Choice, Domain, Effort, Start, ascend, evaluate, plain_choice
from sutura.bounds.condensed import Condensed
from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.bounds.leaf import Given, Place, sound_values

ENTRIES = 1 << 20
"""Entries of the coefficients that are optimised together."""

WORTH = 0.01
"""Share of a neuron's range that an estimated bound must cut off before it is certified."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Subproblems, the choice that bounds each best, and the row that is at most zero where it is of
    interest: as a form of the condensed network, and as given to `leaf`."""

    domain: Domain
    choice: Choice
    form: Start
    given: Given


def retighten(
    place: Place,
    case: Case,
    asked: Bool[np.ndarray, "batch n"],
    effort: Effort,
    checkpoint: Checkpoint = no_checkpoint,
) -> Domain:
    """The domains of the subproblems with the bounds of the asked neurons improved, block after block.

    Never wider than before. Sound for float32 execution on all points of interest: every bound that is taken
    was evaluated by `leaf`. Bounds that cross tell that there are none.
    """
    with np.errstate(all="ignore"):
        return _retightened(place, _scaled(place.net, case), asked, effort, checkpoint)


def _retightened(
    place: Place, case: Case, asked: Bool[np.ndarray, "batch n"], effort: Effort, checkpoint: Checkpoint
) -> Domain:
    domain = Domain(case.domain.low.copy(), case.domain.high.copy())
    case = replace(case, domain=domain)
    step = max(1, ENTRIES // (2 * (len(place.net.varying) + place.net.neurons)))
    for block in place.net.blocks:
        leaf, neuron = np.nonzero(asked[:, block.span])
        for first in range(0, len(leaf), step):
            at = leaf[first : first + step], neuron[first : first + step] + block.start
            unit = np.zeros((len(at[0]), place.program.sizes[block.source]))
            unit[np.arange(len(unit)), block.entry[at[1] - block.start]] = 1.0
            low, high = _bounded(place, case, at, (block.source, unit), (effort, checkpoint))
            domain.low[at], domain.high[at] = (
                np.maximum(domain.low[at], low),
                np.minimum(domain.high[at], high),
            )
    return domain


def _scaled(net: Condensed, case: Case) -> Case:
    """Each row of interest divided by its reach over the box, so that a multiple of one is a fair one."""
    choice = replace(case.choice, mix=None, lean=None)
    reach = abs(evaluate(net, net.blocks, case.domain, choice, case.form).inputs) @ net.radius
    scale = 1.0 / np.where(reach > 0, reach, np.float32(np.inf))
    rows = case.form.inputs * scale[:, None], case.form.neurons * scale[:, None]
    form = Start(*rows, case.form.constant * scale)
    return replace(case, form=form, given=case.given.scaled(scale.astype(np.float64)))


def _bounded(
    place: Place,
    case: Case,
    at: tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]],
    unit: tuple[int, Float64[np.ndarray, "r k"]],
    how: tuple[Effort, Checkpoint],
) -> tuple[Float32[np.ndarray, " r"], Float32[np.ndarray, " r"]]:
    """Lower and upper bounds of the neurons `at` (subproblem, neuron); `unit` are their rows."""
    (leaf, neuron), net, (effort, checkpoint) = at, place.net, how
    both = np.concatenate([leaf, leaf])
    many, aid = case.domain.take(both), case.form
    aid = Start(aid.inputs[both], aid.neurons[both], aid.constant[both])
    inputs, neurons, bias = net.from_inputs[neuron], net.from_neurons[neuron], net.bias[neuron]
    start = Start(
        np.concatenate([inputs, -inputs]),
        np.concatenate([neurons, -neurons]),
        np.concatenate([bias, -bias]),
        aid,
    )
    plain = plain_choice(net.blocks, many)
    begin = replace(plain, lower=case.choice.lower[both], lean=np.zeros(len(both), np.float32))
    best = ascend(net, net.blocks, many, (start, begin), effort, checkpoint)
    low, high = case.domain.low[at], case.domain.high[at]
    least = np.concatenate([low, -high]) + WORTH * np.tile(high - low, 2)
    likely = np.flatnonzero(best.value > least)
    value = np.full(len(both), -np.inf)
    if len(likely):
        signed = np.concatenate([unit[1], -unit[1]])[likely]
        chosen = best.choice.take(likely)
        assert chosen.lean is not None
        given = case.given.take(both[likely]).scaled(chosen.lean.astype(np.float64))
        value[likely] = sound_values(place, many.take(likely), chosen, (unit[0], signed), checkpoint, given)
    ends = value[: len(leaf)].astype(np.float32), -value[len(leaf) :].astype(np.float32)
    return np.nextafter(ends[0], np.float32(-np.inf)), np.nextafter(ends[1], np.float32(np.inf))
