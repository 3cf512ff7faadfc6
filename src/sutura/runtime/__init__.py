"""While it runs: a guard around ONNX Runtime, its counters, and its service over HTTP."""

from sutura.runtime.alarm import Alarm as Alarm
from sutura.runtime.guard import Answer as Answer
from sutura.runtime.guard import Guard as Guard
from sutura.runtime.guard import GuardConfig as GuardConfig
from sutura.runtime.tally import Tally as Tally
