"""The table of all variants runs from its script to its page, with a reason where there is no file."""

import json
import pathlib
import runpy

import fresh
import pytest

STUDY = pathlib.Path(__file__).parents[2] / "benchmarks" / "variants.py"


@pytest.mark.release
def test_the_table_is_made_and_goes_on(tmp_path):
    settings = [
        "--images",
        "256",
        "--tests",
        "64",
        "--epochs",
        "1",
        "--seconds",
        "0.1",
        "--records",
        tmp_path,
        "--page",
        tmp_path / "page.md",
    ]
    names = ["float32", "int8", "int4_weights", "int8_int4_mixed"]
    first = fresh.run(STUDY, "--only", "digits", "--variants", *names, *settings)
    assert first.returncode == 0, first.stderr
    made = (tmp_path / "digits.json").read_text()
    found = json.loads(made)
    assert [file["variant"] for file in found["files"]] == names
    assert [file["reason"] for file in found["files"]] == [""] * 4
    sizes = [file["size_bytes"] for file in found["files"]]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] > sizes[3]
    again = fresh.run(STUDY, "--only", "digits", "--variants", *names, *settings)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "digits.json").read_text() == made
    page = (tmp_path / "page.md").read_text()
    assert page.count("\n| ") == 1 + len(names)
    assert "Keras model" in page


REASONS = {
    "TFLite has no NEG.\nThe converter said:\nI0000 and more": "TFLite has no NEG.",
    "'/tmp/x1/8.tflite' should hold integers, but has 2 floats:\n  NEG -> 'a' -> QUANTIZE\n  NEG -> 'b' -> QUANTIZE": (
        "the file should hold integers, but has 2 floats: NEG -> 'a' -> QUANTIZE ..."
    ),
    "one | two": "one / two",
}


@pytest.mark.parametrize("text", REASONS)
def test_a_reason_is_one_line_of_a_table(text):
    study = runpy.run_path(str(STUDY))
    assert study["_reason"](text) == REASONS[text]
    line = study["_line"](study["VariantFile"]("int16x8", text), None)
    assert line.count("\n") == 0
    assert line.count("|") == 10
