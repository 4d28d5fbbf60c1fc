"""The study of weights of 4 bits in some layers: its arithmetic, and the page of its records."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import mixed_bits

from tfdistill.host import fingerprint

RNG = np.random.default_rng(0)
WHOLE, LEAST, RIGHT = (RNG.random(2000) < share for share in (0.9, 0.8, 0.87))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_above_the_line_is_paired_by_image(share):
    above, (low, high) = mixed_bits.above_line(RIGHT, WHOLE, LEAST, share)
    assert above == pytest.approx(RIGHT.mean() - share * WHOLE.mean() - (1 - share) * LEAST.mean(), abs=1e-12)
    each = [float(r) - share * float(w) - (1 - share) * float(least) for r, w, least in zip(RIGHT, WHOLE, LEAST, strict=True)]
    assert high - above == pytest.approx(1.96 * np.std(each, ddof=1) / len(each) ** 0.5)
    assert above - low == pytest.approx(high - above)


def test_the_ends_of_the_line_are_on_it():
    assert mixed_bits.above_line(WHOLE, WHOLE, LEAST, 1.0) == (0.0, (0.0, 0.0))
    assert mixed_bits.above_line(LEAST, WHOLE, LEAST, 0.0) == (0.0, (0.0, 0.0))


def test_the_page_counts_files_above_and_below(tmp_path):
    def file(way, size, low, high):
        return mixed_bits.MixedFile(
            way, size, 0.9, (low + high) / 2, low, high, ("conv",) if way == "mixed" else (), size if way == "mixed" else None
        )

    files = (
        file("all 4", 1000, 0.0, 0.0),
        file("mixed", 1400, 0.001, 0.003),
        file("mixed", 1500, -0.004, -0.002),
        file("mixed", 1700, -0.1, 0.1),
    )
    row = mixed_bits.MixedNet("vit", 0, 1234, 0.91, (*files, file("all 8", 2000, 0.0, 0.0)), fingerprint())
    path = row.save(tmp_path / "vit_0.json")
    text = mixed_bits.page([mixed_bits.MixedNet.load(path)], "picture.png")
    assert "3 mixed files: 1 lie above the line, with the whole interval; 1 lie below it so." in text
    assert "| mixed | 1,400 | 1,400 | 1 | 90.00 | +0.20 (+0.10 to +0.30) |" in text
    assert "| all 8 | 2,000 |  | none | 90.00 |  |" in text
    assert fingerprint().packages_line() in text
    mixed_bits.draw([row], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
