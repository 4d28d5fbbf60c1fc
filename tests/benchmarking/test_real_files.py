"""Files that others trained and published: looked into, timed, run in tflite-micro and made teachers, or refused by the name of what is missing."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import real_files  # noqa: E402 its folder is known now

# What LiteRT itself does not have, and what it has no kernels of its own for, beside XNNPACK.
LACKING = {"mediapipe/face_landmark_with_attention": "Landmarks2TransformMatrix"}
WITH_XNNPACK_ALONE = ("mediapipe/selfie_segmentation", "mediapipe/selfie_segmentation_landscape")
# One of each kind: weights in halves, variables, a custom operation, inputs of any size, one that mixes the samples of a batch.
FEW = (
    *("mediapipe/face_detection_short_range", "pymicro-wakeword/okay_nabu", "mediapipe/face_landmark_with_attention"),
    *("mediapipe/selfie_segmentation_landscape", "pyopen-wakeword/melspectrogram", "mediapipe/hand_recrop"),
)


def check(name):
    record = real_files.measured(name, real_files.fetched(name, real_files.cache_folder()), 0.2)
    assert record.micro
    if name in LACKING:
        assert LACKING[name] in record.reason
        assert record.p50_ms is None
        return
    assert record.reason is None
    assert record.p50_ms > 0
    assert 0 < record.delegated_operations <= record.operations
    assert (record.arena_bytes is None) == (name in WITH_XNNPACK_ALONE)
    assert (record.reference_max_abs_error is None) == (name in WITH_XNNPACK_ALONE)
    assert record.teacher_max_abs_error is None or record.teacher_max_abs_error < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_a_file_of_each_kind(name):
    check(name)


@pytest.mark.release
@pytest.mark.parametrize("name", [name for name in real_files.names() if name not in FEW])
def test_a_file(name):
    check(name)


def test_there_are_over_twenty():
    assert len(set(real_files.names())) == len(real_files.names()) > 20


def test_the_page_is_made_of_the_records():
    page = (ROOT / "docs/real_files.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in real_files.names())
