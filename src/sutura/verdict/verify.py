"""verify(): a loaded network and a property to a verdict."""

from __future__ import annotations

from dataclasses import replace

from sutura.bounds.lower import lower
from sutura.certificate.claim import claim
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.progress import Listener, silent
from sutura.property.spec import Property
from sutura.verdict.outcome import Outcome, Proved
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig, decide


def verify(
    loaded: Loaded, prop: Property, config: VerifyConfig | None = None, *, listen: Listener = silent
) -> Outcome:
    """Decide whether a network has a property. Proved is sound for every float32 execution order.

    A witness was replayed in ONNX Runtime on the file that was loaded. Raises MismatchError where network and
    property do not fit, NetworkError where the network is too large to bound.
    """
    session = open_session(loaded.original if loaded.original is not None else write_onnx(loaded.network))
    outcome = decide(lower(loaded.network), runner(session), prop, config, listen=listen)
    if not isinstance(outcome.verdict, Proved):
        return outcome
    operators = {type(node.op).__name__ for node in loaded.network.nodes}
    return replace(outcome, verdict=Proved(claim(operators=operators)))
