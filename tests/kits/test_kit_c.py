"""The C of a microcontroller's kit: compiled strictly, compared with NumPy, and run, with a stand-in for tflite-micro where that is needed."""

import ctypes
import functools
import pathlib
import re
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit_models import LABELS, ROOT, file_of, kit_of
from stand_in_for_tflite_micro import put_headers

from tfdistill.kits import c_source
from tfdistill.runtime.tensors import TensorInfo
from tfdistill.runtime.versions import runtime_versions

STRICT = ("-Wall", "-Wextra", "-Werror", "-O1")
PORTABLE = ("tensor_math.c", "selftest.c", "model_settings.c", "test_vectors.c")
TYPES = {"float32": 0, "int8": 1, "uint8": 2, "int16": 3, "int32": 4, "bool": 5}
FILES = ("int8", "streaming int8")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("uint8", "softmax", "float32", "features", "streaming", "unlabelled")]


def compiled(folder, *arguments, compiler="gcc"):
    """Compiles as strictly as a firmware may; what the compiler says is in the error."""
    done = subprocess.run([compiler, *STRICT, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@functools.cache
def sources(name):
    """A copy of a kit's folder."""
    folder = pathlib.Path(tempfile.mkdtemp()) / "kit"
    shutil.copytree(kit_of(name, "microcontroller").path, folder)
    return folder


class Info(ctypes.Structure):
    _fields_ = [
        *(("name", ctypes.c_char_p), ("type", ctypes.c_int), ("elements", ctypes.c_size_t), ("scale", ctypes.c_double)),
        *(("zero_point", ctypes.c_int32), ("is_state", ctypes.c_int), ("tolerance", ctypes.c_float), ("channels", ctypes.c_int)),
        *(("normalized", ctypes.c_int), ("mean", ctypes.POINTER(ctypes.c_float)), ("std", ctypes.POINTER(ctypes.c_float))),
    ]


@functools.cache
def library():
    folder = pathlib.Path(tempfile.mkdtemp())
    source = ROOT / "export" / "microcontroller" / "src"
    compiled(folder, "-std=c99", "-pedantic", "-shared", "-fPIC", f"-I{source}", source / "tensor_math.c", "-o", "math.so", "-lm")
    loaded = ctypes.CDLL(str(folder / "math.so"))
    for name, result in (
        ("quantize", ctypes.c_int32),
        ("dequantize", ctypes.c_double),
        ("get", ctypes.c_double),
        ("pixel", ctypes.c_double),
    ):
        getattr(loaded, f"tensor_{name}").restype = result
    loaded.tensor_difference.restype, loaded.tensor_argmax.restype = ctypes.c_double, ctypes.c_size_t
    loaded.tensor_checksum.restype = ctypes.c_uint32
    return loaded


def info_of(dtype, elements=1, scale=0.0, zero_point=0, **others):
    return Info(name=b"x", type=TYPES[dtype], elements=elements, scale=scale, zero_point=zero_point, channels=1, **others)


INTEGERS = st.sampled_from(["int8", "uint8", "int16"])
SCALES = st.floats(1e-6, 1e4, allow_nan=False)


@pytest.mark.slow
@given(INTEGERS, SCALES, st.data())
@settings(max_examples=300, deadline=None)
def test_integers_are_those_of_numpy(dtype, scale, data):
    limits = np.iinfo(dtype)
    zero = data.draw(st.integers(limits.min, limits.max))
    value = data.draw(st.floats(-1e9, 1e9) | st.integers(-300, 300).map(lambda n: (n + 0.5) * scale))
    info = info_of(dtype, scale=scale, zero_point=zero)
    expected = TensorInfo("x", 0, (1,), dtype, scale, zero).quantize(np.array([value], "float64"))[0]
    found = library().tensor_quantize(ctypes.byref(info), ctypes.c_double(value))
    assert found == expected
    assert library().tensor_dequantize(ctypes.byref(info), found) == (int(expected) - zero) * scale


@pytest.mark.slow
@given(st.sampled_from(["float32", *("int8", "uint8", "int16", "int32")]), st.data())
@settings(max_examples=100, deadline=None)
def test_the_largest_and_the_difference_are_those_of_numpy(dtype, data):
    kind = np.dtype(dtype)
    element = st.floats(-(2.0**100), 2.0**100, width=32) if kind.kind == "f" else st.integers(np.iinfo(kind).min, np.iinfo(kind).max)
    values = data.draw(st.lists(st.tuples(element, element), min_size=1, max_size=20))
    left, right = (np.array(side, kind) for side in zip(*values, strict=True))
    info = info_of(dtype, len(left))
    assert library().tensor_argmax(ctypes.byref(info), left.tobytes()) == int(np.argmax(left))
    apart = library().tensor_difference(ctypes.byref(info), left.tobytes(), right.tobytes())
    assert apart == np.abs(left.astype("float64") - right.astype("float64")).max()


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_neither_equal_nor_a_crash(value):
    one, other = (np.array([number], "float32").tobytes() for number in (value, 1.0))
    assert library().tensor_difference(ctypes.byref(info_of("float32")), one, other) == float("inf")
    found = library().tensor_quantize(ctypes.byref(info_of("int8", scale=0.1)), ctypes.c_double(value))
    assert found == (127 if value == float("inf") else -128)


@pytest.mark.slow
def test_pixels_are_normalized_by_channel():
    mean, std = (ctypes.c_float * 3)(10, 20, 30), (ctypes.c_float * 3)(1, 2, 4)
    info = info_of("uint8", 6, scale=0.5, zero_point=3, normalized=3, mean=mean, std=std)
    info.channels = 3
    memory = ctypes.create_string_buffer(6)
    library().tensor_set_pixels(ctypes.byref(info), memory, bytes([11, 22, 34, 110, 120, 230]))
    pixels = np.array([[11, 22, 34], [110, 120, 230]], "float64")
    expected = TensorInfo("x", 0, (6,), "uint8", 0.5, 3).quantize((pixels - [10, 20, 30]) / [1, 2, 4])
    assert np.frombuffer(memory.raw, "uint8").tolist() == expected.ravel().tolist()


@pytest.mark.slow
@given(st.binary(max_size=60))
def test_the_checksum_is_the_same_in_both_languages(data):
    assert library().tensor_checksum(data, ctypes.c_size_t(len(data))) == c_source.checksum(data)


@given(st.text(max_size=20))
def test_texts_are_c_strings(text):
    quoted = c_source.quoted(text)
    assert re.fullmatch(r'"(\\[0-7]{3}|[ !#->@-\[\]-~])*"', quoted)
    encoded = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), quoted[1:-1]).encode("latin-1")
    assert encoded == text.encode("utf-8")


def test_every_operation_of_tflite_micro_has_a_method_of_the_resolver():
    """Names that differ from the rule, as tflite-micro's micro_mutable_op_resolver.h has them."""
    named = {
        "CONV_2D": "AddConv2D",
        "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
        "AVERAGE_POOL_2D": "AddAveragePool2D",
        "SVDF": "AddSvdf",
        "PADV2": "AddPadV2",
        "REVERSE_V2": "AddReverseV2",
        "SELECT_V2": "AddSelectV2",
        "SPLIT_V": "AddSplitV",
        "CUMSUM": "AddCumSum",
        "BATCH_MATMUL": "AddBatchMatMul",
        "L2_NORMALIZATION": "AddL2Normalization",
        "L2_POOL_2D": "AddL2Pool2D",
        "GATHER_ND": "AddGatherNd",
        "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
        "ADD_N": "AddAddN",
        "RELU6": "AddRelu6",
        "LOG_SOFTMAX": "AddLogSoftmax",
        "TRANSPOSE_CONV": "AddTransposeConv",
        "ADD": "AddAdd",
        "IF": "AddIf",
    }
    assert {name: c_source.method_of(name) for name in named} == named
    assert all(re.fullmatch("Add[A-Z][A-Za-z0-9]+", c_source.method_of(name)) for name in runtime_versions("tflite-micro").operations)


@functools.cache
def program(name):
    """Compiles a whole kit with the stand-in; returns the path of the program."""
    folder = sources(name)
    put_headers(folder / "stand_in")
    for source in PORTABLE:
        compiled(folder, "-std=c99", "-pedantic", "-c", f"src/{source}")
    objects = [f"{pathlib.Path(source).stem}.o" for source in PORTABLE]
    flags = ("-std=c++17", "-Isrc", "-Istand_in")
    compiled(folder, *flags, "main.cc", "src/model_runner.cc", "src/model_data.cc", *objects, "-lm", "-o", "check", compiler="g++")
    return folder / "check"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_a_kit_compiles_strictly_and_checks_itself(name):
    done = subprocess.run([program(name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "selftest: passed" in done.stdout
    assert "FAILED" not in done.stdout
    if name == "int8":
        assert f"scores: largest at 0 {LABELS[0]}" in done.stdout  # zeros, which the stand-in answers with zeros


def changed(name, folder, file, old, new):
    """Compiles a copy of a kit in which something was changed; returns what its check said."""
    program(name)
    copy = folder / "kit"
    shutil.copytree(sources(name), copy)
    text = (copy / "src" / file).read_text()
    assert old in text
    (copy / "src" / file).write_text(text.replace(old, new, 1))
    for source in PORTABLE:
        compiled(copy, "-std=c99", "-c", f"src/{source}")
    objects = [f"{pathlib.Path(source).stem}.o" for source in PORTABLE]
    compiled(
        copy, "-Isrc", "-Istand_in", "main.cc", "src/model_runner.cc", "src/model_data.cc", *objects, "-lm", "-o", "check", compiler="g++"
    )
    return subprocess.run([copy / "check"], capture_output=True, text=True)


@pytest.mark.slow
def test_a_kit_with_another_model_says_so(tmp_path):
    first = (sources("int8") / "src" / "model_data.cc").read_text().split("= {\n")[1][:12]
    done = changed("int8", tmp_path, "model_data.cc", first, "77" + first[first.index(",") :])
    assert (done.returncode, "another model" in done.stdout) == (2, True), done.stdout


@pytest.mark.slow
def test_an_output_beyond_the_tolerance_fails(tmp_path):
    """With other weights a model gives other outputs; here those of the vectors are changed, after the runs gave them."""
    text = (sources("int8") / "src" / "selftest.c").read_text()
    assert "double apart = " in text
    done = changed("int8", tmp_path, "selftest.c", "double apart = ", "double apart = 2.0 + ")
    assert done.returncode == 2
    assert "off by 2 steps (at most 1): FAILED" in done.stdout


@pytest.mark.slow
def test_an_arena_that_is_too_small_is_said(tmp_path):
    size = re.search(r"#define MODEL_ARENA_BYTES (\d+)u", (sources("int8") / "src" / "model_settings.h").read_text()).group(1)
    done = changed("int8", tmp_path, "model_settings.h", f"MODEL_ARENA_BYTES {size}u", "MODEL_ARENA_BYTES 16u")
    assert done.returncode == 1
    assert "the arena of 16 bytes is too small" in done.stdout


def test_the_operations_are_exactly_those_of_the_file():
    text = (sources("int8") / "src" / "model_ops.h").read_text()
    assert re.findall(r"ops\.(Add\w+)", text) == ["AddConv2D", "AddMean", "AddFullyConnected"]
    assert "MicroMutableOpResolver<3>" in text


def test_the_array_is_the_file():
    text = (sources("int8") / "src" / "model_data.cc").read_text()
    assert "alignas(16) const unsigned char model_data[]" in text
    numbers = text.split("= {")[1].split("}")[0]
    assert bytes(int(number) for number in numbers.split(",") if number.strip()) == file_of("int8").read_bytes()


@pytest.mark.slow
def test_the_kit_is_a_part_of_a_project_of_cmake(tmp_path):
    program("int8")
    project = f"""cmake_minimum_required(VERSION 3.16)
project(firmware LANGUAGES C CXX)
add_library(micro INTERFACE)
target_include_directories(micro INTERFACE {sources("int8")}/stand_in)
set(TFDISTILL_MODEL_TFLITE_MICRO micro)
add_subdirectory({sources("int8")} kit)
"""
    (tmp_path / "CMakeLists.txt").write_text(project)
    for command in (["cmake", "-S", ".", "-B", "made"], ["cmake", "--build", "made", "--target", "tfdistill_model_check"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([tmp_path / "made" / "kit" / "tfdistill_model_check"], capture_output=True, text=True)
    assert "selftest: passed" in done.stdout
