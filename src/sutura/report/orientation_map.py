"""A picture of condensation: cosines between the neurons of each layer, those on one line side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from sutura.condensation.measure import LayerOrientations
from sutura.condensation.orientation import clustered_order
from sutura.extras import require


def orientation_map(layers: Sequence[LayerOrientations]) -> bytes:
    """A PNG with a heat map a layer. Raises MissingExtraError without matplotlib."""
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3.2 * columns + 0.8, 3.3 * rows), layout="constrained")
    drawn, image = figure.subplots(rows, columns, squeeze=False).reshape(-1), None
    for axes in drawn[len(layers) :]:
        axes.set_axis_off()
    for axes, layer in zip(drawn, layers, strict=False):
        order = clustered_order(layer.found)
        image = axes.imshow(layer.found.similarity[order][:, order], vmin=-1, vmax=1, cmap="RdBu_r")
        tight = layer.counts[0]
        axes.set_title(
            f"{layer.node or 'layer'}\n{layer.neurons} neurons, {tight.lines} lines, "
            f"{tight.orientations} orientations",
            fontsize=8,
        )
        axes.set_xticks([])
        axes.set_yticks([])
    if image is not None:
        figure.colorbar(image, ax=list(drawn), shrink=0.7, label="cosine of input weights")
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
