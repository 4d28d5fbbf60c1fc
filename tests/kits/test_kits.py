"""Kits of every file for every device: what is in them is whole, and says what the file says."""

import functools
import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from kit_models import FILES, HERE, LABELS, STATES, arguments_of, file_of, kit_of, pixels

import tfdistill
from tfdistill.convert.packing import pack
from tfdistill.errors import ConfigurationError, ExportError
from tfdistill.runtime.schema import schema
from tfdistill.tflite import FileMetadata, Normalization

# Device -> file -> part of why it is refused; all others run there.
REFUSED = {
    "raspberry_pi": {"any size": "the size of"},
    "android": {"any size": "the size of"},
    "web": {
        "int8": "LiteRT.js takes inputs and outputs of float32, int32, uint8, and it has 'image' int8",
        "unlabelled": "'image' int8",
        "streaming int8": "'window' int8",
        "any size": "the size of",
    },
    "microcontroller": {"dynamic_range": "tflite-micro lacks", "any size": "the size of", "tokens": "tflite-micro lacks"},
}
ROWS = [(name, device) for device in HERE for name in FILES]
WHOLE = [(name, device) for name, device in ROWS if name not in REFUSED[device]]


def described(name, device):
    return json.loads(pathlib.Path(kit_of(name, device).path, "model.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "device"), [row for row in ROWS if row not in WHOLE])
def test_what_a_device_cannot_run_is_refused_before_anything_is_written(name, device, tmp_path):
    with pytest.raises(ExportError) as caught:
        tfdistill.kit(file_of(name), device, tmp_path / "kit", **arguments_of(name))
    assert REFUSED[device][name] in caught.value.happened
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "device"), WHOLE)
def test_a_kit_is_whole(name, device):
    record = kit_of(name, device)
    folder = pathlib.Path(record.path)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    listed = json.loads(found.pop("contents.json"))
    assert sorted(found) == sorted(record.files) == sorted(listed["files"])
    assert {path: hashlib.sha256(data).hexdigest() for path, data in found.items()} == listed["files"]
    assert found["model.tflite"] == file_of(name).read_bytes()
    assert record.size_bytes == sum(map(len, found.values()))
    about = json.loads(found["model.json"])
    assert about["sha256"] == record.sha256 == hashlib.sha256(found["model.tflite"]).hexdigest()
    assert about["size_bytes"] == len(found["model.tflite"])
    for vector in about["vectors"]:
        for side in ("inputs", "outputs"):
            for tensor in about[side]:
                expected = vector["steps"] * np.prod(tensor["shape"]) * np.dtype(tensor["dtype"]).itemsize
                assert (tensor["name"] in vector[side]) == (tensor["kind"] != "state")
                assert tensor["kind"] == "state" or len(found[vector[side][tensor["name"]]]) == expected


def runs(about, content):
    """Runs the vectors of a kit in an interpreter of its own; yields (output of model.json, what it gave, what the kit has)."""
    folder = pathlib.Path(content).parent
    for vector in about["vectors"]:
        interpreter = Interpreter(str(content), num_threads=1)
        interpreter.allocate_tensors()
        sides = {"inputs": interpreter.get_input_details(), "outputs": interpreter.get_output_details()}
        indices = {side: {d["name"]: d["index"] for d in details} for side, details in sides.items()}
        held = {each["input"]: each["output"] for each in about["states"]}
        tensors = {tensor["name"]: tensor for side in ("inputs", "outputs") for tensor in about[side]}
        values = {name: np.full(tensors[name]["shape"], tensors[name]["zero_point"] or 0, tensors[name]["dtype"]) for name in held}
        for step in range(vector["steps"]):
            given = {name: part(folder, path, tensors[name], step) for name, path in vector["inputs"].items()}
            for name, array in {**given, **values}.items():
                interpreter.set_tensor(indices["inputs"][tensors[name]["tensor"]], array)
            interpreter.invoke()
            made = {t["name"]: interpreter.get_tensor(indices["outputs"][t["tensor"]]) for t in about["outputs"]}
            values = {name: made[output] for name, output in held.items()}
            for name, path in vector["outputs"].items():
                yield tensors[name], made[name], part(folder, path, tensors[name], step)


def part(folder, path, tensor, step):
    array = np.frombuffer((folder / path).read_bytes(), np.dtype(tensor["dtype"]).newbyteorder("<"))
    return array.reshape(-1, *tensor["shape"])[step].astype(tensor["dtype"])


@pytest.mark.parametrize("name", [name for name, device in WHOLE if device == WHOLE[0][1]])
def test_vectors_are_what_the_file_gives(name):
    device = next(device for device in ("raspberry_pi", "android", "web", "microcontroller") if (name, device) in WHOLE)
    about = described(name, device)
    found = list(runs(about, pathlib.Path(kit_of(name, device).path, "model.tflite")))
    assert found
    for tensor, made, expected in found:
        tolerance = about["tolerance"][tensor["name"]]
        apart = np.abs(made.astype("float64") - expected.astype("float64")).max()
        assert apart <= (tolerance.get("steps", tolerance.get("abs")) if device == "microcontroller" else 0)
    assert len({expected.tobytes() for _, _, expected in found}) > 1 or name == "tokens", (
        "all outputs are equal: the vectors would find nothing"
    )


def test_the_comparison_of_vectors_finds_another_model():
    """Fails on purpose: the vectors of one file do not hold for another."""
    name, other = "int8", "unlabelled"
    about = described(name, "microcontroller")
    folder = pathlib.Path(kit_of(name, "microcontroller").path)
    assert about["sha256"] != described(other, "microcontroller")["sha256"]
    flipped = bytearray((folder / about["vectors"][0]["outputs"]["scores"]).read_bytes())
    flipped[0] ^= 0x40
    _tensor, made, _ = next(iter(runs(about, folder / "model.tflite")))
    assert np.abs(made.astype(int) - np.frombuffer(flipped, "int8").reshape(made.shape)).max() > 1


@functools.cache
def facts():
    return {name: described(name, "microcontroller") for name, device in WHOLE if device == "microcontroller"}


def test_model_json_says_what_the_file_says():
    about = facts()["int8"]
    (image,), (scores,) = about["inputs"], about["outputs"]
    census = tfdistill.census(file_of("int8"))
    assert (image["name"], tuple(image["shape"]), image["dtype"]) == ("image", census.inputs[0].shape, "int8")
    assert (image["scale"], image["zero_point"]) == (census.inputs[0].scale, census.inputs[0].zero_point)
    assert (image["kind"], image["normalization"]) == ("image", {"mean": [0.0], "std": [1.0]})
    assert (scores["kind"], scores["activation"]) == ("scores", "none")
    assert about["labels"] == list(LABELS)
    assert about["variant"] == "int8"
    assert about["metadata"] == {"name": "Ten things", "author": "Ada", "license": "Apache-2.0"}
    assert about["signatures"]["serving_default"]["inputs"] == {"image": image["tensor"]}
    assert about["made_with"]["tfdistill"] == tfdistill.__version__


KINDS = {
    "softmax": ("image", "scores", "softmax"),
    "unlabelled": ("image", "tensor", None),  # an image by its shape; the numbers may mean anything
    "gray": ("image", "scores", "none"),
    "features": ("tensor", "tensor", None),
    "streaming": ("state", "tensor", None),
    "sigmoid": ("image", "scores", None),
}


@pytest.mark.parametrize("name", KINDS)
def test_inputs_and_outputs_are_told_apart(name):
    kind, out, activation = KINDS[name]
    about = facts()[name]
    scores = next((t for t in about["outputs"] if t["kind"] == out), None)
    assert about["inputs"][0]["kind"] == kind
    assert scores is not None
    assert scores["activation"] == activation


def test_values_that_are_no_pixels_are_said(tmp_path):
    """An int8 file of a net of small numbers, in the shape of images: whether it takes pixels, and how, only its user knows."""
    model = keras.Sequential([keras.Input((16, 16, 3), name="image"), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()])
    tfdistill.export_tflite(model, tmp_path / "m.tflite", "int8", calibration=pixels() / 255)

    def made(name, **arguments):
        record = tfdistill.kit(tmp_path / "m.tflite", "microcontroller", tmp_path / name, **arguments)
        (image,) = json.loads((tmp_path / name / "model.json").read_text())["inputs"]
        return image["kind"], any("normalization= says how they become those" in note for note in record.notes)

    assert made("nothing is said") == ("tensor", True)
    assert made("an image", normalization=Normalization(0, 255)) == ("image", False)
    assert made("no image", normalization=Normalization(0, 1, "features")) == ("tensor", False)


def test_states_are_a_sequence_from_zero():
    about = facts()["streaming int8"]
    assert about["states"] == [{"input": "window", "output": "moved"}]
    assert {vector["steps"] for vector in about["vectors"]} == {4}
    assert [set(vector["inputs"]) for vector in about["vectors"]] == [{"row"}] * 3
    assert STATES == {"window": "moved"}


TOLERANCES = {
    ("uint8", "web"): {"steps": 0},
    ("softmax", "web"): {"steps": 1},
    ("float32", "web"): "abs",
    ("int8 with float inputs", "web"): "abs",
    ("int8", "microcontroller"): {"steps": 1},
}


@pytest.mark.parametrize("row", [row for row in TOLERANCES if row[1] in HERE])
def test_integers_are_compared_in_steps_and_floats_by_their_size(row):
    tolerance = described(*row)["tolerance"]["scores"]
    expected = TOLERANCES[row]
    assert tolerance == expected if isinstance(expected, dict) else 0 < tolerance["abs"] < 0.01


def edited(path, change):
    """Writes a copy of a file in which something of its tables was changed."""
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(file_of("features").read_bytes(), 0))
    change(model, classes)
    path.write_bytes(pack(model, classes))
    return path


def two_of_one_name(model, classes):
    model.signatureDefs = None
    for index in model.subgraphs[0].inputs:
        model.subgraphs[0].tensors[index].name = "x"


def no_numbers(model, classes):
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].type = classes.TensorType.COMPLEX64


def no_inputs(model, classes):
    model.subgraphs[0].inputs, model.signatureDefs = np.array([], "int32"), None


EDITS = {
    "several of its inputs are called 'x'": two_of_one_name,
    "its inputs are no numbers that a program has: 'left' complex64": no_numbers,
    "it has no inputs": no_inputs,
}


@pytest.mark.parametrize("said", EDITS)
def test_what_no_program_can_address_is_refused(said, tmp_path):
    path = edited(tmp_path / "m.tflite", EDITS[said])
    with pytest.raises(ExportError) as caught:
        tfdistill.kit(path, "microcontroller", tmp_path / "kit")
    assert said in caught.value.happened
    assert not (tmp_path / "kit").exists()


WRONG_STATES = {
    "states has 'lid', which is no input": {"lid": "moved"},
    "states has 'scored', which is no output": {"window": "scored"},
    "so its bytes cannot be passed on": {"window": "scores"},
}


@pytest.mark.parametrize("said", WRONG_STATES)
def test_states_that_do_not_fit_are_refused(said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        tfdistill.kit(file_of("streaming"), "microcontroller", tmp_path / "kit", states=WRONG_STATES[said])


def test_a_file_of_states_alone_is_refused(tmp_path):
    inputs = keras.Input((4,), name="held")
    tfdistill.export_tflite(keras.Model(inputs, {"next": keras.layers.Activation("relu", name="next")(inputs)}), tmp_path / "m.tflite")
    with pytest.raises(ConfigurationError, match="no input beside its states"):
        tfdistill.kit(tmp_path / "m.tflite", "microcontroller", tmp_path / "kit", states={"held": "next"})


def test_the_file_may_say_its_states(tmp_path):
    """As `provenance["export"]["states"]`; what does not fit the file there is not believed."""
    for name, states in (
        ("said", STATES),
        ("listed", [{"input": "window", "output": "moved"}]),
        ("nonsense", {"window": 3}),
        ("text", "moved"),
    ):
        path = tmp_path / f"{name}.tflite"
        metadata = FileMetadata(provenance={"export": {"states": states}})
        tfdistill.add_metadata(file_of("streaming"), metadata, out=path)
        tfdistill.kit(path, "microcontroller", tmp_path / name)
        found = json.loads((tmp_path / name / "model.json").read_text())["states"]
        assert found == ([{"input": "window", "output": "moved"}] if name in ("said", "listed") else [])


def test_samples_become_the_vectors(tmp_path):
    x = np.random.default_rng(3).uniform(0, 255, (5, 16, 16, 3)).astype("float32")
    record = tfdistill.kit(file_of("int8"), "microcontroller", tmp_path / "kit", samples=x)
    about = json.loads((tmp_path / "kit" / "model.json").read_text())
    image = about["inputs"][0]
    for number, vector in enumerate(about["vectors"]):
        found = np.frombuffer((tmp_path / "kit" / vector["inputs"]["image"]).read_bytes(), "int8").reshape(16, 16, 3)
        assert (found == np.clip(np.round(x[number] / image["scale"]) + image["zero_point"], -128, 127)).all()
    assert record.vectors == 3


def test_a_kit_is_the_same_twice(tmp_path):
    again = tfdistill.kit(file_of("int8"), "microcontroller", tmp_path / "kit")
    first = kit_of("int8", "microcontroller")
    assert {p: (tmp_path / "kit" / p).read_bytes() for p in again.files} == {
        p: pathlib.Path(first.path, p).read_bytes() for p in first.files
    }
