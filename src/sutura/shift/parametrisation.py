"""DeepShift layers to train: parametrisations of the weights of ordinary PyTorch layers.

Elhoushi et al., "DeepShift" (CVPRW 2021). The forward pass writes to no parameter, so that modules export,
copy and train in parallel like any other; `clamp` holds parameters in range after an optimiser's step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sutura.errors import ShiftError
from sutura.network.budget import shown
from sutura.shift.grid import SQRT_HALF, Grid, ps_grid, q_grid

Rounding = Literal["deterministic", "stochastic"]

ROUNDINGS = ("deterministic", "stochastic")


class Shift(nn.Module):
    """What both forms share: a grid, a rounding, and a state that tells which they are (abstract)."""

    code: int

    def __init__(self, grid: Grid, rounding: Rounding) -> None:
        super().__init__()
        if rounding not in ROUNDINGS:
            raise ShiftError(f"no rounding is called {rounding!r}; known: {', '.join(ROUNDINGS)}")
        self.grid, self.rounding = grid, rounding

    def get_extra_state(self) -> Tensor:
        """Form and bits, so that a saved state says what its numbers mean."""
        return torch.tensor([self.code, self.grid.bits])

    def set_extra_state(self, state: Tensor) -> None:
        """Raises ShiftError for a state saved from another form or width."""
        own = [self.code, self.grid.bits]
        if state.tolist() != own:
            raise ShiftError(
                f"this state is of {_title(state.tolist())}, the layer is {_title(own)};"
                " shift the module in the same way before loading"
            )

    def _rounded(self, p: Tensor) -> Tensor:
        """R(p): to the nearest, or up with the probability of its fraction; without a gradient."""
        if self.rounding == "stochastic" and self.training:
            low = p.floor()
            return low + (torch.rand_like(p) < p - low)
        return p.round()


@final
class QShift(Shift):
    """DeepShift-Q: weight W -> sign(W) * 2**R(log2 |W|), clipped; its gradient goes to W as it is.

    Exact zeros stay zero. Stochastic rounding is for training mode; in eval mode rounding is deterministic.
    """

    code = 0

    def __init__(self, bits: int, rounding: Rounding = "deterministic") -> None:
        super().__init__(q_grid(bits), rounding)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight on the grid."""
        held = weight.detach()
        if self.rounding == "stochastic" and self.training:
            smallest = 2.0**self.grid.lowest
            p = self._rounded(held.abs().clamp(smallest, 1.0).log2())
        else:  # as sutura.shift.grid does, from mantissas: exact at the threshold
            mantissa, exponent = torch.frexp(held.abs())
            p = torch.where(mantissa > SQRT_HALF, exponent, exponent - 1)
        value = torch.ldexp(torch.sign(held), p.clamp(self.grid.lowest, 0))
        return value + (weight - held)  # adds exact zeros: only the gradient passes

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The parameter that a weight is set by."""
        return weight

    @torch.no_grad()
    def clamp(self, weight: Tensor) -> None:
        """W <- sign(W) * clip(|W|, 2**lowest, 1), as the published code does before each forward pass."""
        weight.copy_(weight.sign() * weight.abs().clamp(2.0**self.grid.lowest, 1.0))


@final
class PsShift(Shift):
    """DeepShift-PS: parameters shift p and sign s -> sign(round(s)) * 2**R(clip(p)).

    Gradients: dL/dp = dL/dW * W * ln 2; dL/ds = dL/dW, on purpose without the factor 2**p.
    """

    code = 1

    def __init__(self, bits: int, rounding: Rounding = "deterministic") -> None:
        super().__init__(ps_grid(bits), rounding)

    def forward(self, shift: Tensor, sign: Tensor) -> Tensor:
        """The weight on the grid."""
        p, s = shift.detach(), sign.detach()
        value = torch.ldexp(s.round().sign(), self._rounded(p.clamp(self.grid.lowest, 0)).int())
        return value + value * math.log(2) * (shift - p) + (sign - s)  # adds exact zeros

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """From a trained weight: p = round(log2 |W|), clipped, and s = sign(W)."""
        mantissa, exponent = torch.frexp(weight.detach().abs())
        p = torch.where(mantissa > SQRT_HALF, exponent, exponent - 1)
        p = torch.where(mantissa == 0, self.grid.lowest, p).clamp(self.grid.lowest, 0)
        return p.to(weight.dtype), weight.detach().sign()

    @torch.no_grad()
    def clamp(self, shift: Tensor, sign: Tensor) -> None:
        """p <- clip(p, lowest, 0)."""
        shift.clamp_(self.grid.lowest, 0)


FORMS = {"q": QShift, "ps": PsShift}
"""Published method -> its parametrisation."""


def shifted_module(
    module: nn.Module,
    method: str,
    bits: int,
    *,
    keep: Collection[str] = (),
    rounding: Rounding = "deterministic",
) -> nn.Module:
    """A copy of `module` whose linear layers and convolutions have weights on the grid, ready to train.

    All of them, first and last included, but for those named in `keep`; biases and normalisations stay.
    Raises ShiftError for a method without a form to train, or a name that is no such layer.
    """
    if method not in FORMS:
        raise ShiftError(f"no method to train is called {method!r}; known: {', '.join(FORMS)}")
    made = copy.deepcopy(module)
    layers = {name: part for name, part in made.named_modules() if isinstance(part, LAYERS)}
    for name in keep:
        if name not in layers:
            raise ShiftError(f"no layer is called {shown(name)}; there are {', '.join(map(shown, layers))}")
    for name, part in layers.items():
        if name not in keep and not parametrize.is_parametrized(part, "weight"):
            parametrize.register_parametrization(part, "weight", FORMS[method](bits, rounding))
    return made.train(module.training)


def clamp(module: nn.Module) -> None:
    """Bring the parameters of all shifted layers back into range; to be called after an optimiser's step."""
    for held, form in _forms(module):
        originals = [
            part for name, part in held.named_parameters(recurse=False) if name.startswith("original")
        ]
        form.clamp(*originals)


@torch.no_grad()
def drawn(module: nn.Module, seed: int) -> nn.Module:
    """A copy with the shifts and signs that training of DeepShift-PS begins with where nothing is pretrained.

    p ~ U(-10, -1) in convolutions and U(lowest, 0) in linear layers, s ~ U(-1, 1); other layers, and those
    of DeepShift-Q, keep the weights they have.
    """
    made, source = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    for part in made.modules():
        for held, form in _forms(part) if isinstance(part, LAYERS) else ():
            if isinstance(form, PsShift):
                low, high = (form.grid.lowest, 0) if isinstance(part, nn.Linear) else (-10, -1)
                shift, sign = (p for name, p in held.named_parameters() if name.startswith("original"))
                shift.uniform_(low, high, generator=source)
                sign.uniform_(-1, 1, generator=source)
    return made


def plain(module: nn.Module) -> nn.Module:
    """A copy in eval mode with ordinary layers that hold the weights of the grid: to export or verify."""
    made = copy.deepcopy(module).eval()
    for part in list(made.modules()):
        if parametrize.is_parametrized(part, "weight"):
            weight = cast("Tensor", part.weight).detach().clone()
            # Not remove_parametrizations: it changes the class, which a copy shares with its original.
            kind: Any = next(kind for kind in LAYERS if isinstance(part, kind))
            part.__class__ = kind
            del part.parametrizations
            part.register_parameter("weight", nn.Parameter(weight))
    return made


def _forms(module: nn.Module) -> Iterator[tuple[nn.Module, QShift | PsShift]]:
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            held = cast("nn.ModuleDict", part.parametrizations)["weight"]
            form = next(iter(held.children()))
            if isinstance(form, QShift | PsShift):
                yield held, form


def _title(state: list[int]) -> str:
    names = {form.code: name for name, form in FORMS.items()}
    return f"{names.get(state[0], 'an unknown method')} with {state[1]} bits"


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""What is shifted."""
