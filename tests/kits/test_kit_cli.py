"""`tfdistill kit` as a user types it, the README's lines included."""

import json
import pathlib
import re
import webbrowser

import numpy as np
import pytest
from kit_models import HERE, LABELS, ROOT, file_of, pixels
from test_cli_files import command

from tfdistill.kits import KitRecord

LINES = re.findall(r"^tfdistill kit (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def browser(monkeypatch):
    """A browser that notes the addresses, and a user who presses Control-C at once."""
    opened = []

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tfdistill.cli.kits.until_interrupted", interrupted)
    return opened


@pytest.mark.parametrize("line", [line for line in LINES if line.split("--for ")[1].split()[0] in HERE])
def test_the_lines_of_the_readme(line, tmp_path, browser):
    for name, file in (("photos", "uint8"), ("student", "int8")):
        (tmp_path / f"{name}.tflite").write_bytes(file_of(file).read_bytes())
    code, printed = command(tmp_path, "kit", *line.split())
    assert code == 0, printed
    folder = tmp_path / line.split("--out ")[1].split()[0]
    assert (folder / "model.json").is_file()
    assert (folder / "README.md").is_file()
    assert len(browser) == ("--open" in line)
    assert all(address in printed for address in browser)


def test_the_readme_has_a_line_for_each_device():
    assert [line.split("--for ")[1].split()[0] for line in LINES] == ["raspberry_pi", "android", "web", "microcontroller"]


def test_a_file_that_says_nothing_is_told_by_options(tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    np.savez(tmp_path / "data.npz", x=pixels(4), y=np.zeros(4))
    options = ("--labels", "labels.txt", "--normalization", "0,1", "--samples", "data.npz", "--record", "record.json")
    code, printed = command(tmp_path, "kit", file_of("unlabelled"), "--for", "microcontroller", "--out", "board", *options)
    assert code == 0, printed
    about = json.loads((tmp_path / "board" / "model.json").read_text())
    assert about["labels"] == list(LABELS)
    assert about["inputs"][0]["normalization"] == {"mean": [0.0], "std": [1.0]}
    assert (tmp_path / "board" / "labels.txt").read_text().splitlines() == list(LABELS)
    record = KitRecord.load(tmp_path / "record.json")
    assert record.labels == len(LABELS)
    image = np.frombuffer((tmp_path / "board" / about["vectors"][0]["inputs"]["image"]).read_bytes(), "int8")
    assert (image == image[0]).all()  # the first sample is black


MISTAKES = {
    "no such device": (("--for", "phone", "--out", "a"), 1, "There is no kit for 'phone'"),
    "a page of a board": (("--for", "microcontroller", "--out", "a", "--open"), 1, "leave --open out"),
    "not enough memory": (("--for", "microcontroller", "--out", "a", "--arena-bytes", "100"), 1, "it needs an arena of"),
    "integers in a browser": (("--for", "web", "--out", "a"), 1, "io='uint8'"),
    "no folder": (("--for", "web"), 2, "--out"),
    "no labels": (("--for", "microcontroller", "--out", "a", "--labels", "none.txt"), 1, "cannot be read"),
    "no samples": (("--for", "microcontroller", "--out", "a", "--samples", "none.npz"), 1, "There is no data"),
}


@pytest.mark.parametrize("row", MISTAKES)
def test_a_mistake_is_said_and_nothing_is_written(row, tmp_path, capfd):
    words, expected, said = MISTAKES[row]
    code, printed = command(tmp_path, "kit", file_of("int8"), *words)
    assert code == expected
    assert said in printed + "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none(tmp_path):
    pathlib.Path(tmp_path / "m.tflite").write_bytes(b"TFL3" * 10)
    code, printed = command(tmp_path, "kit", "m.tflite", "--for", "web", "--out", "a")
    assert (code, "a whole .tflite file" in printed) == (1, True), printed
