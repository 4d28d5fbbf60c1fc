"""The page and the pictures of `benchmarks/shrinking.py`, made from its records alone."""

import dataclasses

import numpy as np

from tfdistill.host import HostFingerprint
from tfdistill.records import Record
from tfdistill.utils.files import write_whole
from tfdistill.utils.optional import require

METHODS = ("auto", "svd", "spatial_svd", "tucker", "cp")
# The net itself, trained on as long as what was made of it.
UNCHANGED = "unchanged"
# What the name of a step ends with that is trained so much longer.
TIMES = 3
LONG = f", {TIMES} times as long"
# What the name of a step ends with that leaves all channels of the convolutions with fewer channels than go in.
NARROW_WHOLE = ", narrow layers whole"
# Shares that stay, and the one that the goals are about: 2.1 times fewer multiply-accumulates.
SHARES, GOAL = (0.75, 0.48, 0.3), 0.48
LOST_AT_MOST, ABOVE_L1 = 0.3, 0.3
SHOWN = {"resnet": "ResNet-like", "vgg": "VGG-like", "mobilenet": "MobileNetV2-like"}
WAYS = {
    "before": "before tuning",
    "statistics": "BatchNormalization's statistics anew",
    "labels": "tuned by the labels",
    "teacher": "tuned under the teacher",
}
_COLOURS = ("#4c566a", "#bf616a", "#d08770", "#ebcb8b", "#2e7d32", "#8fbcbb", "#5e81ac", "#b48ead")


@dataclasses.dataclass(frozen=True)
class Shrunk(Record):
    """A net made smaller in one way.

    Attributes:
        step: Criterion of channel pruning, with the rounds if there are several, or method of low-rank factorization; or `UNCHANGED`. It ends with `LONG` if it
            was trained longer, with `NARROW_WHOLE` if convolutions that narrow kept their channels.
        keep: Largest share of multiply-accumulates, or of parameters, that was to stay.
        share: Share that stays.
        macs: Multiply-accumulates that stay.
        parameters: Parameters that stay.
        accuracies: One of `WAYS` -> accuracy on the test part, 0 to 1.
        apply_cpu_seconds: Processor time of `apply`, the scores with it.
        cpu_seconds: Processor time in all.
    """

    step: str
    keep: float
    share: float
    macs: int
    parameters: int
    accuracies: dict[str, float]
    apply_cpu_seconds: float
    cpu_seconds: float


@dataclasses.dataclass(frozen=True)
class NetOfStudy(Record):
    """A net of one seed, and the ways in which it was made smaller.

    Attributes:
        net: Name of the net.
        seed: Seed of weights, order of the data and training.
        dataset: Name of the data set.
        samples: Number of training images.
        epochs: Epochs of the net's training.
        tuning_epochs: Epochs of each training after it was made smaller.
        calibration: Number of the images that criteria by data get.
        parameters: Number of its parameters.
        macs: Multiply-accumulates of an image.
        accuracy: Accuracy on the test part, 0 to 1.
        steps: `Shrunk` of each step.
        cpu_seconds: Processor time of the net's training.
        host: Machine and package versions.
    """

    net: str
    seed: int
    dataset: str
    samples: int
    epochs: int
    tuning_epochs: int
    calibration: int
    parameters: int
    macs: int
    accuracy: float
    steps: tuple[Shrunk, ...]
    cpu_seconds: float
    host: HostFingerprint

    @property
    def settings(self):
        return {name: getattr(self, name) for name in ("dataset", "samples", "epochs", "tuning_epochs", "calibration")}

    def points(self, step, keep, way):
        """Returns the points of accuracy between the whole net and a step, negative where the smaller one is worse; None if it was not measured."""
        for one in self.steps:
            if (one.step, one.keep) == (step, keep) and way in one.accuracies:
                return 100 * (one.accuracies[way] - self.accuracy)
        return None


def _points(rows, step, keep, way):
    found = [row.points(step, keep, way) for row in rows]
    return [value for value in found if value is not None]


def _cell(values):
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.2f}{spread}"


def _steps(rows, low_rank):
    names = dict.fromkeys(one.step for row in rows for one in row.steps if not one.step.startswith(UNCHANGED))
    return [name for name in names if (name in METHODS) == low_rank]


def gain_over_l1(rows, end=""):
    """Returns the points that the best criterion is above L1, seed by seed, and the names of the best; the best is that of the other seeds, so that chance does not flatter it.

    Args:
        rows: `NetOfStudy` of each seed of one net.
        end: `LONG` for the steps that were trained longer.
    """
    gains, names = [], []
    for row in rows:
        others = [other for other in rows if other is not row] or [row]
        means = {
            name: np.mean(found)
            for name in _steps(rows, False)
            if not ("rounds" in name or name.endswith(NARROW_WHOLE))
            and name.endswith(LONG) == bool(end)
            and (found := _points(others, name, GOAL, "teacher"))
        }
        l1 = row.points(f"l1{end}", GOAL, "teacher")
        means.pop(f"l1{end}", None)
        best = max(means, key=means.__getitem__, default=None)
        if best is None or l1 is None or row.points(best, GOAL, "teacher") is None:
            continue
        gains.append(row.points(best, GOAL, "teacher") - l1)
        names.append(best)
    return gains, names


def _goals(by_net):
    lines = [
        "| net | trained | the best beside L1 | its loss, points | at most 0.3 | above L1, points | at least 0.3 |",
        "|---|---|---|---:|---|---:|---|",
    ]
    for name, rows, end in [(name, rows, end) for end in ("", LONG) for name, rows in by_net.items()]:
        gains, names = gain_over_l1(rows, end)
        if not gains:
            continue
        chosen = [row.points(best, GOAL, "teacher") for row, best in zip(rows, names, strict=False)]
        lost = -float(np.mean(chosen))
        epochs = rows[0].tuning_epochs * (TIMES if end else 1)
        lines.append(
            f"| {SHOWN[name]} | {epochs} epochs | {', '.join(f'`{best.removesuffix(end)}`' for best in dict.fromkeys(names))} | {lost:.2f} | {_met(lost <= LOST_AT_MOST)} "
            f"| {_cell(gains)} | {_met(np.mean(gains) >= ABOVE_L1)} |"
        )
    return lines


def _met(reached):
    return "reached" if reached else "not reached"


def _table(rows, low_rank, keep):
    """Returns the lines of the steps of one net at one share, those that lose least after training under the teacher first."""
    ways = [way for way in WAYS if any(way in one.accuracies for row in rows for one in row.steps if one.keep == keep)]
    counted = "parameters" if low_rank else "MACs"
    lines = [
        f"| {'method' if low_rank else 'criterion'} | {counted} that stay, % | {' | '.join(WAYS[way] for way in ways)} | to choose, s |",
        f"|---|---:|{'---:|' * len(ways)}---:|",
    ]
    found = []
    for step in _steps(rows, low_rank):
        several = [one for row in rows for one in row.steps if (one.step, one.keep) == (step, keep)]
        if several:
            values = [_points(rows, step, keep, way) for way in ways]
            cells = " | ".join(_cell(value) for value in values)
            stays, seconds = (np.mean([getattr(one, field) for one in several]) for field in ("share", "apply_cpu_seconds"))
            order = np.mean(values[-1]) if values[-1] else -np.inf
            found.append((order, f"| `{step}` | {100 * stays:.1f} | {cells} | {seconds:.1f} |"))
    return [*lines, *(line for _, line in sorted(found, key=lambda pair: -pair[0]))] if found else []


def _texts(rows, by_net, pictures):
    first, seeds = rows[0], max(map(len, by_net.values()))
    seconds = sum(row.cpu_seconds + sum(one.cpu_seconds for one in row.steps) for row in rows)
    lines = [
        "# Smaller shapes: criteria and factorizations",
        "",
        f"{first.dataset}: {first.samples:,} training images, {first.epochs} epochs, {seeds} seeds. Each net is made smaller in one go, and trained for {first.tuning_epochs} epochs, by the",
        "labels alone or with the original net as the teacher (`SoftTargets`). Figures are points of accuracy on the test images that the smaller net differs by from",
        f"the original, mean and standard deviation over the seeds. Criteria by data and low-rank factorization get {first.calibration} training images; scores are compared in the whole model",
        '(`scope="global"`), numbers of channels and ranks are free (`divisor=1`). Criteria in several rounds have the training between them, with as many epochs in all; rows that',
        f'end with "{LONG.removeprefix(", ")}" are trained for {TIMES * first.tuning_epochs} epochs. In those that end with "{NARROW_WHOLE.removeprefix(", ")}"',
        "the convolutions keep their channels that have fewer of them than go in. Made by `benchmarks/shrinking.py`.",
        "",
        f"| net | parameters | MACs | accuracy by seed, % | trained on by the labels, points | under itself as the teacher | the same{LONG} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, several in by_net.items():
        accuracies = " ".join(f"{100 * row.accuracy:.2f}" for row in several)
        trained_on = ((UNCHANGED, "labels"), (UNCHANGED, "teacher"), (f"{UNCHANGED}{LONG}", "teacher"))
        further = " | ".join(_cell(_points(several, step, 1.0, way)) for step, way in trained_on)
        lines.append(f"| {SHOWN[name]} | {several[0].parameters:,} | {several[0].macs:,} | {accuracies} | {further} |")
    goals = _goals(by_net)
    if len(goals) > 2:  # more than the head of the table
        lines += [
            "",
            "## Goals",
            "",
            f"At {1 / GOAL:.1f} times fewer multiply-accumulates, trained under the teacher: at most {LOST_AT_MOST} points lost, and the best criterion at least {ABOVE_L1} above L1 magnitude.",
            "The best of a seed is the best of the other seeds, so that chance does not flatter it.",
            "",
            *goals,
        ]
    for low_rank, title in ((False, "Channels"), (True, "Low rank")):
        if not any(_steps(several, low_rank) for several in by_net.values()):
            continue
        lines += ["", f"## {title}", "", f"![Points lost against what stays]({pictures[low_rank]})"]
        for name, several in by_net.items():
            for keep in SHARES:
                table = _table(several, low_rank, keep)
                lines += ["", f"### {SHOWN[name]}, {keep:g} of the {'parameters' if low_rank else 'MACs'}", "", *table] if table else []
    return "\n".join([*lines, "", f"{seconds / 3600:.1f} hours of processor time on {first.host.packages_line()}.", ""])


def _picture(by_net, low_rank, path):
    """Draws points against the share that stays: before training and afterwards, one column for each net."""
    matplotlib = require("matplotlib", "draw the pictures")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", "draw the pictures")
    ways = ("before", "statistics", "teacher")
    names = list(
        dict.fromkeys(name for rows in by_net.values() for name in _steps(rows, low_rank) if not name.endswith((LONG, NARROW_WHOLE)))
    )
    with pyplot.rc_context({"svg.hashsalt": "shrinking", "svg.fonttype": "none", "font.size": 9}):
        figure, grid = pyplot.subplots(
            len(ways), len(by_net), figsize=(4 * len(by_net), 9), sharex=True, squeeze=False, layout="constrained"
        )
        for column, (net, rows) in enumerate(by_net.items()):
            for line, way in enumerate(ways):
                axes = grid[line][column]
                for number, name in enumerate(names):
                    points = [(one.keep, _points(rows, name, one.keep, way)) for one in rows[0].steps if one.step == name]
                    points = sorted((keep, float(np.mean(values))) for keep, values in points if values)
                    if points:
                        style = "s" if "rounds" in name else "o"
                        axes.plot(*zip(*points, strict=True), f"-{style}", color=_COLOURS[number % len(_COLOURS)], label=name, markersize=4)
                axes.axhline(0, color="#4c566a", linewidth=0.6)
                axes.grid(alpha=0.3)
                axes.set_title(f"{SHOWN[net]}: {WAYS[way]}", fontsize=9)
            grid[-1][column].set_xlabel(f"share of the {'parameters' if low_rank else 'MACs'} that stays")
        for row in grid:
            row[0].set_ylabel("points of accuracy")
        handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)
        with write_whole(path) as beside:
            figure.savefig(beside, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def write_page(rows, page):
    """Writes the page of the records in Markdown, and a picture of channels and one of low rank beside it.

    Args:
        rows: List of `NetOfStudy`s.
        page: Path of the page.
    """
    by_net = {name: found for name in SHOWN if (found := sorted((row for row in rows if row.net == name), key=lambda row: row.seed))}
    pictures = {low_rank: page.with_name(f"{page.stem}_{kind}.svg") for low_rank, kind in ((False, "channels"), (True, "low_rank"))}
    for low_rank, path in pictures.items():
        if any(_steps(several, low_rank) for several in by_net.values()):
            _picture(by_net, low_rank, path)
    with write_whole(page) as beside:
        beside.write_text(_texts(rows, by_net, {low_rank: path.name for low_rank, path in pictures.items()}), encoding="utf-8")
