"""`model.json` is read as it is meant on the phone, and whatever is wrong in it is named: run on the JVM."""

import copy
import json

import hypothesis
import hypothesis.strategies as st
import kotlin_kit
import pytest
from test_android_core import LABELS, description, tensor, written

pytestmark = pytest.mark.slow
STATE = tensor("state", (1, 6), "int8", 0.5, 4, kind="state")
NEXT = tensor("next", (1, 6), "int8", 0.5, 4, kind="state")
SCORES = tensor("scores", (1, 4), "int8", 0.25, -3, kind="scores", activation="none")
FLOATS = tensor("scores", (1, 4), "float32", kind="scores", activation="softmax")
IMAGE = tensor("image", (1, 8, 6, 3), "uint8", 0.5, 10, kind="image")
NAMES = {"inputs": {"image": "x", "state": "s"}, "outputs": {"scores": "y", "next": "n"}}
STATEFUL = {
    "inputs": [IMAGE, STATE],
    "outputs": [SCORES, NEXT],
    "states": [{"input": "state", "output": "next"}],
    "signatures": {"other": {"inputs": {"q": "q"}, "outputs": {"r": "r"}}, "stream": NAMES},
}
# What changes in a description -> what is read: name, signature, image, scores, tensors, labels, states, number of vectors.
READ = [
    ({}, "net|serving_default|image|scores|image:UINT8[1, 8, 6, 3]IMAGE0.5+10,scores:INT8[1, 4]SCORES0.25+-3|[Äpfel, b, c, d]|{}|1"),
    (STATEFUL, "net|stream|image|scores|image:UINT8[1, 8, 6, 3]IMAGE0.5+10,state:INT8[1, 6]STATE0.5+4,scores:"),
    ({"signatures": {}, "labels": None, "metadata": {}}, "||image|scores|"),
    (
        {"vectors": [], "tolerance": {}},
        "net|serving_default|image|scores|image:UINT8[1, 8, 6, 3]IMAGE0.5+10,scores:INT8[1, 4]SCORES0.25+-3|",
    ),
    (
        {"outputs.0": FLOATS, "tolerance.scores": {"abs": 0}},
        "net|serving_default|image|scores|image:UINT8[1, 8, 6, 3]IMAGE0.5+10,scores:FLOAT32[1, 4]SCORESnull+0|",
    ),
    ({"inputs.0": tensor("image", (1, 5), "int32", kind="tensor")}, "net|serving_default|null|scores|image:INT32[1, 5]TENSORnull+0,"),
    ({"inputs.0": tensor("image", (), "bool", kind="tensor")}, "net|serving_default|null|scores|image:BOOL[]TENSORnull+0,"),
]
# What changes -> what is said of it.
REFUSED = [
    ({"format": 2}, "its format is 2, and this app reads format 1"),
    ({"format": "1"}, "format is '1', not a whole number"),
    ({"sha256": "abc"}, "sha256 is 'abc', not 64 hexadecimal digits"),
    ({"size_bytes": 0}, "size_bytes is 0, not a number from 1 to"),
    ({"file": "../../secrets"}, "file is '../../secrets', not a path inside the kit"),
    ({"file": "/etc/passwd"}, "file is '/etc/passwd', not a path inside the kit"),
    ({"file": "a/../b"}, "file is 'a/../b', not a path inside the kit"),
    ({"vectors.0.inputs": {"image": "../x"}}, "not a path inside the kit"),
    ({"inputs": []}, "it has 0 inputs and 1 outputs"),
    ({"inputs": None}, "inputs is null, not a list"),
    ({"inputs": [3]}, "inputs[0] is 3, not an object"),
    ({"inputs": [IMAGE, IMAGE]}, "'image' is described 2 times"),
    ({"inputs.0.dtype": "int16"}, "inputs[0].dtype is 'int16', not a type that Android's LiteRT reads"),
    ({"inputs.0.dtype": None}, "inputs[0].dtype is null, not a text"),
    ({"inputs.0.shape": [1, -1, 6, 3]}, "inputs[0].shape is [1, -1, 6, 3], not a list of sizes of 1 and more"),
    ({"inputs.0.shape": [1, 8.5, 6, 3]}, "inputs[0].shape is [1, 8.5, 6, 3], not a list of whole numbers"),
    ({"inputs.0.shape": [1, 1 << 40, 1 << 40, 3]}, "not a tensor of at most"),
    ({"inputs.0.shape": [2, 8, 6, 3]}, "inputs[0].shape is [2, 8, 6, 3], not (1, height, width, 1 or 3 channels)"),
    ({"inputs.0.shape": [1, 8, 6, 4]}, "1 or 3 channels"),
    ({"inputs.0.dtype": "int64", "inputs.0.scale": None}, "inputs[0].dtype is 'int64', not a type that takes pixels"),
    ({"inputs.0.scale": 0}, "inputs[0].scale is 0, not a step above 0 of an 8-bit type"),
    ({"inputs.0.scale": -1.5}, "inputs[0].scale is -1.5, not a step above 0"),
    ({"inputs.0.scale": "0.5"}, "inputs[0].scale is '0.5', not a number"),
    ({"inputs.0.zero_point": 256}, "inputs[0].zero_point is 256, not a number from 0 to 255"),
    ({"outputs.0.zero_point": -129}, "outputs[0].zero_point is -129, not a number from -128 to 127"),
    ({"inputs.0.kind": "sound"}, "inputs[0].kind is 'sound', not one of [image, tensor, state]"),
    (
        {"inputs.0.normalization": {"mean": [1, 2], "std": [1, 1]}},
        "inputs[0].normalization.mean is [1, 2], not one number, or one for each of 3",
    ),
    (
        {"inputs.0.normalization": {"mean": [1], "std": [0]}},
        "inputs[0].normalization.std is [0], not as many numbers as mean, none of them 0",
    ),
    ({"inputs.0.normalization": {"mean": [1], "std": [1, 1, 1]}}, "inputs[0].normalization.std is [1, 1, 1], not as many numbers"),
    ({"inputs.0.normalization": {"mean": ["a"], "std": [1]}}, "inputs[0].normalization.mean is [a], not a list of numbers"),
    (
        {"signatures": {"a": {"inputs": {"x": "x"}, "outputs": {"scores": "y"}}}},
        "no signature has the inputs and outputs that it describes",
    ),
    ({"labels": LABELS[:3]}, "it has 3 labels, and 'scores' has 4 classes"),
    ({"labels": [1, 2, 3, 4]}, "labels is [1, 2, 3, 4], not a list of texts"),
    ({"outputs.0.kind": "tensor"}, "it has labels, and no output of scores"),
    ({"states": [{"input": "y", "output": "scores"}]}, "the state 'y' is no input"),
    ({"states": [{"input": "image", "output": "y"}]}, "the state 'y' is no output"),
    ({**STATEFUL, "states": []}, "no output is the next value of the state 'state'"),
    ({**STATEFUL, "outputs": [SCORES, {**NEXT, "scale": 0.25}]}, "the state 'state' has another shape, type or scale than 'next'"),
    ({"vectors.0.inputs": {}}, "vectors[0].inputs is {}, not the inputs [image]"),
    ({"vectors.0.outputs": {"z": "z.bin"}}, "vectors[0].outputs is {z=z.bin}, not some of the outputs [scores]"),
    ({"vectors.0.outputs": {"scores": 1}}, "vectors[0].outputs is {scores=1}, not an object of texts"),
    ({"vectors.0.steps": 0}, "vectors[0].steps is 0, not a number from 1 to"),
    ({"tolerance": {}}, "tolerance.scores is null, not an object"),
    ({"tolerance.scores": {}}, "tolerance.scores is {}, not an object with either steps or abs"),
    ({"tolerance.scores": {"abs": -1}}, "tolerance.scores.abs is -1, not a difference of 0 and more"),
    ({"tolerance.scores": {"steps": -1}}, "tolerance.scores.steps is -1, not a number from 0 to 255"),
    ({"outputs.0": FLOATS, "tolerance.scores": {"steps": 0}}, "tolerance.scores.steps is 0, not a tolerance of floats"),
]
NOT_JSON = {
    b"": "the text ends too early",
    b"{": "the text ends too early",
    b'{"a": 1} x': "something follows the value",
    b'{"a": 1, "a": 2}': "'a' is there twice",
    b'{"a" 1}': "':' is missing",
    b"[1, ]": "']' begins no value",
    b"[1 2]": "',' is missing",
    b"[01]": "',' is missing",
    b"[-]": "a number is incomplete",
    b"[1e999]": "1e999 is too large",
    b"[tru]": "a value is missing",
    b"[NaN]": "'N' begins no value",
    b'["\\x"]': "'\\x' is no escape",
    b'["\\u12g4"]': "four hexadecimal digits",
    b'["\n"]': "a control character stands in a string",
    b"[" * 5000: "values are nested more than",
}


def jobs_of(rows, folder):
    return [
        ["describe", written(folder / f"{number}.json", description(**copy.deepcopy(changes)))] for number, (changes, _) in enumerate(rows)
    ]


def test_what_fits_is_read(tmp_path):
    for (changes, expected), (good, text) in zip(READ, kotlin_kit.run_jobs(jobs_of(READ, tmp_path)), strict=True):
        assert good, text
        assert text.startswith(expected), (changes, text)


def test_what_does_not_fit_is_named(tmp_path):
    for (changes, expected), (good, text) in zip(REFUSED, kotlin_kit.run_jobs(jobs_of(REFUSED, tmp_path)), strict=True):
        assert not good, changes
        assert text.startswith("model.json does not fit: "), text
        assert expected in text, (changes, text)
        assert text.endswith(". | Make the kit anew: tfdistill kit MODEL.tflite --for android --out FOLDER")


def test_what_is_no_json_is_refused(tmp_path):
    contents = {**NOT_JSON, b'{"a": "\xff"}': "model.json is no UTF-8 text"}
    jobs = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(content)
        jobs.append(["describe", tmp_path / f"{number}"])
    for expected, (good, text) in zip(contents.values(), kotlin_kit.run_jobs(jobs), strict=True):
        assert not good
        assert text.startswith("model.json is no ")
        assert expected in text


# Whole numbers of 64 bits, floats, texts of all kinds; no lone surrogates, which UTF-8 does not have.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda one: st.lists(one, max_size=4) | st.dictionaries(TEXTS, one, max_size=4),
    max_leaves=8,
)


def _kotlin(value):
    """How Kotlin prints a value that it has read."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_kotlin(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_kotlin, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def test_values_are_those_that_python_wrote(tmp_path):
    values = []

    @hypothesis.settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @hypothesis.given(VALUES)
    def collect(value):
        values.append(value)

    collect()
    # Floats print otherwise in the two languages: they are compared as numbers, one by one.
    floats = [value for value in values if isinstance(value, float)] + [0.1, 1e-300, 5e-324, 1.7976931348623157e308, -0.0]
    others = [
        value
        for value in values
        if "." not in json.dumps(value) and "e" not in json.dumps(value).lower().replace("true", "").replace("false", "")
    ]
    assert len(others) > 50
    texts = [json.dumps(value, ensure_ascii=bool(number % 2)) for number, value in enumerate(others)]
    answers = kotlin_kit.run_jobs([["json", text] for text in texts] + [["json", repr(value)] for value in floats])
    for value, (good, text) in zip(others, answers, strict=False):
        assert good
        assert text.replace("\n", "\\n") == _kotlin(value).replace("\n", "\\n")
    assert [float(text) for _, text in answers[len(others) :]] == floats
