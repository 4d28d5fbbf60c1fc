"""Pictures of the errors of layers, made from records."""

from tfdistill.utils.files import write_whole
from tfdistill.utils.optional import require

_OWN, _TOTAL = "#bf616a", "#4c566a"
# Errors below this are drawn as this: those of float rounding would take most of a logarithmic axis.
_LEAST = 1e-7


def layer_error_picture(record, path):
    """Draws both errors of each layer, in the order of the graph from above.

    Args:
        record: `LayerErrors`.
        path: The picture to write, whole or not at all.

    Returns:
        The path.
    """
    require("matplotlib", "draw the layers").use("Agg")
    pyplot = require("matplotlib.pyplot", "draw the layers")
    rows = record.layers
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.24 * len(rows)), layout="constrained")
    places = range(len(rows))
    axes.barh(places, [max(row.own_error, _LEAST) for row in rows], color=_OWN, label="arises here")
    axes.plot(
        [max(row.total_error, _LEAST) for row in rows], places, "o-", color=_TOTAL, markersize=4, linewidth=1, label="has come together"
    )
    axes.set_xscale("log")
    axes.set_yticks(places, [f"{row.name}  ◀" if row is record.worst else row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("root mean square error as a share of the output's standard deviation")
    axes.set_title(f"{record.path} against {record.model}, {record.samples} samples", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=120)
    pyplot.close(figure)
    return path
