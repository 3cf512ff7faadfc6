"""The comparison of verify_against_marabou.py, with neurons split whatever the number of inputs.

    python benchmarks/verify_neurons_against_marabou.py --python PATH [--cases N] [--seed S] [--timeout T]

Left to itself sutura splits inputs on networks this small; here its other search is compared. Options,
printed counts and exit code are those of verify_against_marabou.py.
"""

from __future__ import annotations

import sys

import verify_against_marabou as comparison

from sutura.bounds.lower import lower
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.property.spec import Property
from sutura.verdict.neuron_search import decide_by_neurons
from sutura.verdict.outcome import Outcome
from sutura.verdict.replay import runner
from sutura.verdict.search import VerifyConfig


def by_neurons(loaded: Loaded, wanted: Property, config: VerifyConfig) -> Outcome:
    """As `verify`, for files of float32 networks, by neurons."""
    assert loaded.original is not None
    run = runner(open_session(loaded.original))
    return decide_by_neurons(lower(loaded.network), run, wanted, config)


if __name__ == "__main__":
    comparison.verify = by_neurons
    sys.exit(comparison.main())
