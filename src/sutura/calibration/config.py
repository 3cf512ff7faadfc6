"""What to calibrate with: the method by name, its settings, and what may not be lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sutura.training.config import TrainConfig

if TYPE_CHECKING:
    from sutura.calibration.falcon import FalconConfig
    from sutura.calibration.graded import GradedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """`method` is one of METHODS. A share `holdout` of the data is set aside for the figures.

    Methods that train follow `train`, fit and train on separate parts where they do both, and start from the
    weights given; an ensemble's `members` start anew. `smoothing` is the share of label smoothing, `passes`
    the number of passes with dropout. Losing more than `allowed_drop` of accuracy is refused.
    """

    method: str = "temperature"
    holdout: float = 0.2
    allowed_drop: float = 0.01
    seed: int = 0
    train: TrainConfig = field(default_factory=lambda: TrainConfig(rate=1e-4))
    falcon: FalconConfig | None = None
    graded: GradedConfig | None = None
    smoothing: float = 0.1
    members: int = 5
    passes: int = 20
