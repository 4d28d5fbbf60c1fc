"""The study of smaller shapes runs from its script to its page, and goes on where it was interrupted."""

import json
import pathlib
import runpy

import fresh
import numpy as np
import pytest

from tfdistill.host import fingerprint

STUDY = pathlib.Path(__file__).parents[3] / "benchmarks" / "shrinking.py"
TINY = {"dataset": "digits", "samples": 256, "calibration": 32, "epochs": 1, "tuning-epochs": 3, "seeds": 1, "only": "vgg", "shares": 0.48}


def run(folder, *steps):
    settings = [f"--{name}={value}" for name, value in TINY.items()]
    return fresh.run(STUDY, *settings, "--records", folder, "--page", folder / "page.md", "--steps", *steps)


@pytest.mark.release
def test_the_study_makes_its_page_and_goes_on(tmp_path):
    first = run(tmp_path, "tucker")
    assert first.returncode == 0, first.stderr
    began = json.loads((tmp_path / "vgg_0.json").read_text())
    second = run(tmp_path, "tucker", "taylor", "unchanged")
    assert second.returncode == 0, second.stderr
    ended = json.loads((tmp_path / "vgg_0.json").read_text())
    assert ended["steps"][:1] == began["steps"], "what was measured is not measured again"
    assert [one["step"] for one in ended["steps"]] == [
        "tucker",
        "taylor",
        "taylor, 3 rounds",
        "taylor, 3 times as long",
        "unchanged",
        "unchanged, 3 times as long",
    ]
    assert [set(one["accuracies"]) for one in ended["steps"]] == [{"before", "statistics", "labels", "teacher"}] * 2 + [
        {"teacher"},
        {"teacher"},
        {"before", "statistics", "labels", "teacher"},
        {"teacher"},
    ]
    assert all(0.4 < one["share"] <= one["keep"] for one in ended["steps"])
    assert ended["steps"][-2]["accuracies"]["before"] == ended["accuracy"]
    page = (tmp_path / "page.md").read_text()
    for said in ("| `taylor, 3 rounds` |", "| `tucker` |", "](page_channels.svg)", "](page_low_rank.svg)"):
        assert said in page
    assert {path.name for path in tmp_path.glob("*.svg")} == {"page_channels.svg", "page_low_rank.svg"}


# Accuracies in % of L1, Taylor and random in three seeds, of nets that have 90 -> the points that the best is above L1, and what the page says of both goals.
GOALS = {
    "one criterion is the best in all seeds": (((89.0, 89.9, 80.0), (89.2, 89.9, 81.0), (89.4, 89.8, 82.0)), 0.667, "reached", "reached"),
    "the best of a seed is the worst of the others": (
        ((89.0, 89.9, 80.0), (89.0, 80.0, 89.9), (89.0, 89.0, 89.0)),
        -6.0,
        "not reached",
        "not reached",
    ),
    "L1 is the best": (((89.9, 89.8, 80.0), (89.8, 89.7, 81.0), (90.0, 89.9, 82.0)), -0.1, "reached", "not reached"),
}


@pytest.mark.parametrize("end", ["", ", 3 times as long"])
@pytest.mark.parametrize("case", GOALS)
def test_the_best_criterion_is_that_of_the_other_seeds(case, end, tmp_path):
    page = runpy.run_path(str(STUDY.with_name("shrinking_page.py")))
    accuracies, gain, *reached = GOALS[case]
    rows = []
    for seed, found in enumerate(accuracies):
        steps = [
            page["Shrunk"](f"{name}{end}", 0.48, 0.47, 47, 50, {"before": 0.5, "teacher": value / 100}, 1.0, 2.0)
            for name, value in zip(("l1", "taylor", "random"), found, strict=True)
        ]
        rows.append(page["NetOfStudy"]("vgg", seed, "digits", 10, 1, 1, 5, 100, 100, 0.9, tuple(steps), 3.0, fingerprint()))
    gains, _ = page["gain_over_l1"](rows, end)
    assert np.mean(gains) == pytest.approx(gain, abs=1e-3)
    page["write_page"](rows, tmp_path / "page.md")
    line = next(
        line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith(f"| VGG-like | {3 if end else 1} epochs |")
    )
    assert [cell.strip() for cell in line.split("|")][5:8:2] == reached
