"""The very files of microcontrollers' kits in tflite-micro: the memory that they need, and how far their outputs are from LiteRT's."""

import functools
import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from kit_models import file_of, kit_of

import tfdistill
from tfdistill.convert.packing import pack
from tfdistill.errors import ExportError, RuntimeUnavailableError
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.runtime.micro_arena import run_in_micro
from tfdistill.runtime.schema import schema

FOLDER = pathlib.Path(os.environ.get("TFDISTILL_MLPERF_TINY", ""))
# Net -> (.h5 file, the benchmark's own int8 file, lowest and highest value of the input).
NETS = {
    "ad01": ("ad01.h5", "ad01_int8.tflite", -10.0, 10.0),
    "kws": ("kws_model.h5", "kws_ref_model.tflite", -15.0, 15.0),
    "resnet": ("pretrainedResnet.h5", "pretrainedResnet_quant.tflite", 0.0, 255.0),
    "str_ww": ("str_ww_ref_model.h5", "str_ww_ref_model.tflite", 0.0, 1.0),
    "vww": ("vww_96.h5", "vww_96_int8.tflite", 0.0, 1.0),
}
# LiteRT's own kernels and its plain ones. XNNPACK rounds otherwise, layer by layer: up to four steps after the ten of resnet.
KERNELS = (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)


@functools.cache
def ours(net):
    """An int8 file that tfdistill makes of a trained net."""
    name, _, low, high = NETS[net]
    model = tfdistill.load_model(FOLDER / name)
    data = np.random.default_rng(0).uniform(low, high, (16, *model.inputs[0].shape[1:])).astype("float32")
    path = pathlib.Path(tempfile.mkdtemp()) / f"{net}.tflite"
    tfdistill.export_tflite(model, path, "int8", calibration=data, tolerances=tfdistill.tflite.Tolerances())
    return path


def before_softmax(path):
    """Returns a file that ends in what its softmax reads: behind it one step of the logits is several of the probabilities."""
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    code = model.operatorCodes[graph.operators[-1].opcodeIndex]
    if max(code.builtinCode, code.deprecatedBuiltinCode) == classes.BuiltinOperator.SOFTMAX:
        graph.outputs = np.array([graph.operators.pop().inputs[0]], "int32")
        model.signatureDefs = None
    return ModelFile(path, pack(model, classes))


def in_litert(file, inputs, kernels):
    interpreter = Interpreter(model_content=file.content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (source,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for array in inputs:
        interpreter.set_tensor(source["index"], array)
        interpreter.invoke()
        found.append(interpreter.get_tensor(end["index"]))
    return np.stack(found).astype(int)


def steps_apart(path):
    """The largest difference to the nearer of LiteRT's sets of kernels, in steps of the logits, on integers over the whole range."""
    file = before_softmax(path)
    (tensor,) = tfdistill.census(path).inputs
    rng, limits = np.random.default_rng(0), np.iinfo(tensor.dtype)
    inputs = [rng.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype) for _ in range(16)]
    done = run_in_micro(file, [[[array]] for array in inputs], 1)
    made = np.stack([sequence[0][0] for sequence in done.outputs]).astype(int)
    return min(int(np.abs(made - in_litert(file, inputs, kernels).reshape(made.shape)).max()) for kernels in KERNELS)


@pytest.mark.parametrize("name", ["int8", "uint8", "softmax"])
def test_outputs_are_within_a_step_of_litert(name):
    assert steps_apart(file_of(name)) <= 1


def opens(path, arena):
    """Whether tflite-micro opens and runs a file in an arena, in this process."""
    from tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_file(str(path), arena_size=arena)
        interpreter.set_input(np.zeros(tfdistill.census(path).inputs[0].shape, interpreter.get_input_details(0)["dtype"]), 0)
        interpreter.invoke()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", ["int8", "softmax", "float32", "streaming int8"])
def test_the_arena_is_the_smallest_in_which_the_file_runs(name):
    arena = kit_of(name, "microcontroller").arena_bytes
    if len(tfdistill.census(file_of(name)).inputs) == 1:
        assert opens(file_of(name), arena)
        assert not opens(file_of(name), arena - 32)
    assert 256 < arena < 1 << 16


def test_a_file_that_needs_more_memory_is_refused_before_anything_is_written(tmp_path):
    arena = kit_of("float32", "microcontroller").arena_bytes
    with pytest.raises(ExportError, match=f"it needs an arena of {arena:,} bytes, and there are {arena - 16:,}"):
        tfdistill.kit(file_of("float32"), "microcontroller", tmp_path / "kit", arena_bytes=arena - 16)
    size = file_of("float32").stat().st_size
    with pytest.raises(ExportError, match=f"it has {size:,} bytes, and the flash {size - 1:,}"):
        tfdistill.kit(file_of("float32"), "microcontroller", tmp_path / "kit", flash_bytes=size - 1)
    assert list(tmp_path.iterdir()) == []
    tfdistill.kit(file_of("float32"), "microcontroller", tmp_path / "kit", arena_bytes=arena, flash_bytes=size)
    assert f"MODEL_ARENA_BYTES {arena // 16 * 16}u" in (tmp_path / "kit" / "src" / "model_settings.h").read_text()


def test_states_are_passed_on_as_in_litert():
    """The state counts: the same row gives another output in the second run, as it does in LiteRT."""
    file = read_file(file_of("streaming int8"))
    about = json.loads(pathlib.Path(kit_of("streaming int8", "microcontroller").path, "model.json").read_text())
    inputs, outputs = ([tensor["name"] for tensor in about[side]] for side in ("inputs", "outputs"))
    zero = np.full((1, 3, 4), about["inputs"][inputs.index("window")]["zero_point"], "int8")
    row = np.full((1, 1, 4), 50, "int8")
    run = [zero if name == "window" else row for name in inputs]
    state = (inputs.index("window"), outputs.index("moved"))
    kept = run_in_micro(file, [[run, run]], 2, [state]).outputs[0]
    lost = run_in_micro(file, [[run, run]], 2).outputs[0]
    scores = outputs.index("scores")
    assert (kept[0][scores] == lost[0][scores]).all()
    assert (lost[0][scores] == lost[1][scores]).all()
    assert (kept[1][scores] != lost[1][scores]).any()
    assert (kept[1][outputs.index("moved")][0, 1:] == row).all()


def test_what_tflite_micro_refuses_is_said_with_its_words():
    with pytest.raises(RuntimeUnavailableError, match="tflite-micro cannot run") as caught:
        run_in_micro(read_file(file_of("tokens")), [[[np.zeros((1, 6), "int32")]]], 1)
    assert "It said" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_the_official_files_of_mlperf_tiny(net, tmp_path):
    path = FOLDER / NETS[net][1]
    record = tfdistill.kit(path, "microcontroller", tmp_path / "kit")
    assert record.arena_bytes
    assert opens(path, record.arena_bytes)
    assert steps_apart(path) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_our_files_of_mlperf_tiny(net, tmp_path):
    record = tfdistill.kit(ours(net), "microcontroller", tmp_path / "kit")
    assert record.arena_bytes
    assert opens(ours(net), record.arena_bytes)
    assert steps_apart(ours(net)) <= 1
