"""A bar plot of the times of a file's operations, made from an `OperationProfile`."""

from tfdistill.utils.files import write_whole
from tfdistill.utils.optional import require
from tfdistill.utils.tables import clean

_COLOURS = {True: "#2563a8", False: "#d9822b"}
_WORDS = {True: "run by XNNPACK", False: "run by the interpreter's own kernels"}


def operation_picture(profile, path, most=20):
    """Draws the slowest operations as bars, the slowest above.

    Args:
        profile: `OperationProfile`.
        path: The picture to write, whole or not at all; its ending says the format.
        most: Most bars.

    Returns:
        The path.
    """
    require("matplotlib", "draw the operations").use("Agg")
    pyplot = require("matplotlib.pyplot", "draw the operations")
    rows = profile.slowest(most)
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + 0.3 * len(rows)), layout="constrained")
    for delegated in (True, False):
        places = [place for place, row in enumerate(rows) if row.delegated is delegated]
        if places:
            axes.barh(places, [rows[place].mean_us for place in places], color=_COLOURS[delegated], label=_WORDS[delegated])
    for place, row in enumerate(rows):
        axes.text(row.mean_us, place, f" {row.mean_us:.1f} us, {row.share:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [clean(row.name, 48) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlabel("microseconds")
    axes.set_title(f"{clean(profile.path, 80)}: {profile.total_us:,.0f} us in {len(profile.operations)} operations", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    with write_whole(path) as beside:
        figure.savefig(beside, dpi=120)
    pyplot.close(figure)
    return path
