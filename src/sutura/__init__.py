"""Sutura: repair neural networks correctly.

    import sutura

    loaded = sutura.load("net.onnx")
    prop = sutura.read_property("safe.vnnlib")
    sutura.verify(loaded, prop).verdict            # Proved | Violated(witness) | Unknown(reason)
    fixed = sutura.repair(loaded, [prop])          # fixed.onnx, fixed.certificate

Names are imported when first used: `import sutura` itself loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sutura.calibration.calibrate import Calibrated as Calibrated
    from sutura.calibration.calibrate import calibrate as calibrate
    from sutura.calibration.config import CalibrateConfig as CalibrateConfig
    from sutura.certificate.check import check as check
    from sutura.compression.compress import Compressed as Compressed
    from sutura.compression.compress import compress as compress
    from sutura.compression.study import CompressConfig as CompressConfig
    from sutura.condensation.condense import CondenseConfig as CondenseConfig
    from sutura.condensation.condense import Condensed as Condensed
    from sutura.condensation.condense import condense as condense
    from sutura.errors import SuturaError as SuturaError
    from sutura.gates.deliver import Repair as Repair
    from sutura.gates.mend import ClampConfig as ClampConfig
    from sutura.gates.mend import RepairConfig as RepairConfig
    from sutura.gates.minimal import MinimalConfig as MinimalConfig
    from sutura.gates.nrepair import NRepairConfig as NRepairConfig
    from sutura.gates.repair import repair as repair
    from sutura.network.graph import Network as Network
    from sutura.network.read import Loaded as Loaded
    from sutura.network.read import load as load
    from sutura.property.build import argmax_in as argmax_in
    from sutura.property.build import argmax_not_in as argmax_not_in
    from sutura.property.build import argmin_in as argmin_in
    from sutura.property.build import argmin_not_in as argmin_not_in
    from sutura.property.build import box as box
    from sutura.property.build import output_bound as output_bound
    from sutura.property.build import robustness as robustness
    from sutura.property.read import read_property as read_property
    from sutura.property.spec import Property as Property
    from sutura.report.notebook import html as html
    from sutura.risk.quantify import RiskConfig as RiskConfig
    from sutura.risk.quantify import RiskResult as RiskResult
    from sutura.risk.quantify import quantify_risk as quantify_risk
    from sutura.risk.reach import output_range as output_range
    from sutura.runtime.guard import Guard as Guard
    from sutura.runtime.guard import GuardConfig as GuardConfig
    from sutura.shift.convert import ShiftConfig as ShiftConfig
    from sutura.shift.convert import Shifted as Shifted
    from sutura.shift.convert import to_shift as to_shift
    from sutura.verdict.difference import DiffConfig as DiffConfig
    from sutura.verdict.difference import Difference as Difference
    from sutura.verdict.difference import diff as diff
    from sutura.verdict.outcome import Proved as Proved
    from sutura.verdict.outcome import Unknown as Unknown
    from sutura.verdict.outcome import Violated as Violated
    from sutura.verdict.search import VerifyConfig as VerifyConfig
    from sutura.verdict.verify import verify as verify

__version__ = "0.1.0"

PLACES = {
    "Calibrated": "calibration.calibrate",
    "calibrate": "calibration.calibrate",
    "CalibrateConfig": "calibration.config",
    "check": "certificate.check",
    "CondenseConfig": "condensation.condense",
    "Condensed": "condensation.condense",
    "condense": "condensation.condense",
    "Compressed": "compression.compress",
    "CompressConfig": "compression.study",
    "compress": "compression.compress",
    "SuturaError": "errors",
    "Network": "network.graph",
    "Loaded": "network.read",
    "load": "network.read",
    "argmax_in": "property.build",
    "argmax_not_in": "property.build",
    "argmin_in": "property.build",
    "argmin_not_in": "property.build",
    "box": "property.build",
    "output_bound": "property.build",
    "robustness": "property.build",
    "read_property": "property.read",
    "Property": "property.spec",
    "Repair": "gates.deliver",
    "ClampConfig": "gates.mend",
    "RepairConfig": "gates.mend",
    "MinimalConfig": "gates.minimal",
    "NRepairConfig": "gates.nrepair",
    "repair": "gates.repair",
    "html": "report.notebook",
    "Guard": "runtime.guard",
    "GuardConfig": "runtime.guard",
    "RiskConfig": "risk.quantify",
    "RiskResult": "risk.quantify",
    "quantify_risk": "risk.quantify",
    "output_range": "risk.reach",
    "ShiftConfig": "shift.convert",
    "Shifted": "shift.convert",
    "to_shift": "shift.convert",
    "VerifyConfig": "verdict.search",
    "DiffConfig": "verdict.difference",
    "Difference": "verdict.difference",
    "diff": "verdict.difference",
    "Proved": "verdict.outcome",
    "Unknown": "verdict.outcome",
    "Violated": "verdict.outcome",
    "verify": "verdict.verify",
}
"""Public name -> the module of this package that defines it."""

__all__ = ["__version__", *PLACES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"sutura has no '{name}'; it has {', '.join(sorted(PLACES))}")
    return getattr(import_module(f"sutura.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
