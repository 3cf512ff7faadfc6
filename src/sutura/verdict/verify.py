"""verify(): a loaded network and a property to a verdict."""

from __future__ import annotations

import time
from dataclasses import replace

from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.certificate.claim import claim
from sutura.journal import Track
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.progress import Listener, silent
from sutura.property.spec import Property
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig
from sutura.verdict.strategy import decide


def verify(
    loaded: Loaded,
    prop: Property,
    config: VerifyConfig | None = None,
    *,
    listen: Listener = silent,
    track: Track | None = None,
) -> Outcome:
    """Decide whether a network has a property. Proved is sound for every execution in the profile of `config`
    (by default every float32 execution order); its claim says so, and what it rests on.

    A witness was replayed in ONNX Runtime on the file that was loaded. With a `track` of a journal (see
    `sutura.journal`) the search records what it does and goes on from what is recorded. Raises MismatchError
    where network and property do not fit, NetworkError where the network is too large to bound.
    """
    session = open_session(loaded.original if loaded.original is not None else write_onnx(loaded.network))
    config = config or VerifyConfig()
    operators = {type(node.op).__name__ for node in loaded.network.nodes}
    program = under(lower(loaded.network), EXECUTIONS[config.profile], operators)
    started = time.monotonic()
    try:
        outcome = decide(program, runner(session), prop, config, listen=listen, track=track)
    except (MemoryError, ArithmeticError, RuntimeError) as error:  # of a worker or of this thread
        what = "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        return Outcome(Unknown(f"the search stopped: {what}"), Account(0, 0.0, time.monotonic() - started))
    if not isinstance(outcome.verdict, Proved):
        return outcome
    return replace(outcome, verdict=Proved(claim(config.profile, operators, config.runtime)))
