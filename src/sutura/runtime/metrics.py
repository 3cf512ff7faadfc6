"""A guard's counters as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, final

from sutura.errors import MissingExtraError
from sutura.runtime.guard import Guard

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@final
class GuardCollector:
    """Register it with a registry of prometheus_client; every scrape reads the guard's counters."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        core = _client().core
        tally, guard = self._guard.tally, self._guard
        for name, words, value in (
            ("calls", "Calls of the guard.", tally.calls),
            ("refused_calls", "Calls of another type or shape.", tally.refused_calls),
            ("samples", "Samples asked about.", tally.samples),
            ("inside", "Samples that lie in a certified box.", tally.inside),
            ("breaches", "Samples that breached an assumption of the certificate.", tally.breaches),
            ("unlogged_breaches", "Breaches that could not be written to the log.", tally.unlogged),
            ("inference_seconds", "Wall seconds in ONNX Runtime.", tally.inference_seconds),
            ("guard_seconds", "Wall seconds that the guard added.", tally.guard_seconds),
        ):
            yield core.CounterMetricFamily(f"sutura_guard_{name}", words, value=value)
        alarms = core.CounterMetricFamily(
            "sutura_guard_alarms", "Samples answered by the fallback.", labels=["cause"]
        )
        for cause, count in tally.alarms.items():
            alarms.add_metric([cause], count)
        rows = core.CounterMetricFamily(
            "sutura_guard_gate", "Samples by the gate they met; row 0: none.", labels=["row"]
        )
        for row, count in enumerate(tally.gate_rows):
            rows.add_metric([str(row)], count)
        yield alarms
        yield rows
        for name, words, value in (
            ("breached", "1 once an assumption was ever breached; stays.", guard.breached),
            ("ready", "1 while the network answers.", guard.ready),
        ):
            yield core.GaugeMetricFamily(f"sutura_guard_{name}", words, value=float(value))


def exposition(guard: Guard) -> tuple[bytes, str]:
    """The counters as Prometheus text, and its content type.

    Raises MissingExtraError where the package prometheus_client is not installed.
    """
    client = _client()
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(GuardCollector(guard))
    return client.generate_latest(registry), client.CONTENT_TYPE_LATEST


def _client() -> Any:
    try:
        client = import_module("prometheus_client")
        import_module("prometheus_client.core")
    except ImportError:
        raise MissingExtraError(
            "Prometheus text needs the package prometheus-client; pip install 'sutura[serve]'"
        ) from None
    return client
