"""The file of earlier benchmarks: what is appended, what is passed over, and what changed."""

import dataclasses
import json
import multiprocessing
import os

import pytest

from tfdistill.benchmarking import BenchmarkRecord, History, SpeedChange
from tfdistill.errors import ConfigurationError
from tfdistill.host import HostFingerprint

HOST = HostFingerprint("a processor", "x86_64", 2, 2, 1, "Linux", "3.11", {"ai-edge-litert": "2.2"}, "0.1")
RECORD = BenchmarkRecord(
    **dict(
        path="int8.tflite", variant=None, sha256="a", size_bytes=1, target="CPU", target_settings={"kind": "cpu"}, engine="ai_edge_litert"
    ),
    **dict(input_shapes={"x": (1, 2)}, p50_ms=0.24, p90_ms=1.0, p99_ms=1.0, mean_ms=1.0, min_ms=0.2, p50_low_ms=0.235, p50_high_ms=0.245),
    **dict(confidence=0.95, runs=100, warmup_runs=5, converged=True, init_ms=1.0, arena_bytes=1, baseline_rss_bytes=1, peak_rss_bytes=1),
    **dict(load_average=0.0, host=HOST),
)


def of(p50, **changes):
    return dataclasses.replace(RECORD, p50_ms=p50, p50_low_ms=p50 * 0.98, p50_high_ms=p50 * 1.02, **changes)


def put(path, *lines):
    path.write_bytes(b"\n".join(lines))


def line(record, time="2026-11-20T10:00:00+00:00"):
    return json.dumps({"time": time, "record": record.to_dict()}).encode()


def test_a_later_run_says_what_changed(tmp_path):
    path = tmp_path / "new folder/history.jsonl"
    history = History(path)
    assert history.records() == []
    assert history.add(RECORD) is None
    changed = history.add(of(0.21, sha256="b", host=dataclasses.replace(HOST, packages={"ai-edge-litert": "2.3"})))
    assert (changed.before_ms, changed.intervals_apart, changed.same_content) == (0.24, True, False)
    assert changed.versions == {"ai-edge-litert": "2.2 -> 2.3"}
    assert "12 % faster, intervals apart, ai-edge-litert 2.2 -> 2.3" in changed.line()
    assert [record.p50_ms for _, record in history.records()] == [0.24, 0.21]
    assert SpeedChange.load(changed.save(tmp_path / "c.json")) == changed
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (of(0.21), "0.21 ms, was 0.24 ms on 2026-11-20, same host: 12 % faster, intervals apart, same file"),
        (of(0.3, sha256="b"), "0.3 ms, was 0.24 ms on 2026-11-20, same host: 25 % slower, intervals apart"),
        (of(0.238), "no difference shown (1 % faster, intervals overlap), same file"),
        (dataclasses.replace(RECORD, p50_ms=0.1, p50_low_ms=None, p50_high_ms=None), "no difference shown"),
    ],
)
def test_what_changed_is_said(now, words, tmp_path):
    put(tmp_path / "h", line(RECORD))
    assert words in History(tmp_path / "h").change(now).line()


def test_records_from_before_amx_was_a_setting_are_compared(tmp_path):
    put(tmp_path / "h", line(RECORD))
    now = of(1.0, target_settings={**RECORD.target_settings, "amx": True})
    assert History(tmp_path / "h").change(now) is not None
    assert History(tmp_path / "h").change(dataclasses.replace(now, target_settings={**now.target_settings, "amx": False})) is None


OTHERS = {
    "another file": of(1.0, path="float32.tflite"),
    "without AMX": of(1.0, target_settings={"kind": "cpu", "amx": False}),
    "another target": of(1.0, target_settings={"kind": "cpu", "threads": 2}),
    "other shapes": of(1.0, input_shapes={"x": (4, 2)}),
    "other cores": of(1.0, pinned_cores=(0,)),
    "another machine": of(1.0, host=dataclasses.replace(HOST, cpu_model="another")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_only_what_can_be_compared_is(other, tmp_path):
    put(tmp_path / "h", line(OTHERS[other]), b"")
    assert History(tmp_path / "h").change(RECORD) is None


def test_the_last_one_counts(tmp_path):
    put(tmp_path / "h", line(of(0.5)), line(RECORD), line(OTHERS["another file"]), b"")
    assert History(tmp_path / "h").change(of(0.2)).before_ms == 0.24


DAMAGED = [
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"1" * 5000,
    b"[" * 100_000,
    b'{"time": "yesterday", "record": {}}',
    b'{"time": 5, "record": {}}',
    b'{"time": "2026-11-20", "record": {"path": "x"}}',
    line(RECORD)[:-20],
    line(RECORD).replace(b"0.24", b'"fast"'),
    b"\0" * 100,
]


@pytest.mark.parametrize("broken", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines_are_passed_over_and_kept(broken, tmp_path):
    put(tmp_path / "h", line(RECORD), broken)  # without an end of line, as a killed writer leaves it
    history = History(tmp_path / "h")
    assert history.damaged() == 1
    assert history.add(of(0.21)).before_ms == 0.24
    assert [record.p50_ms for _, record in history.records()] == [0.24, 0.21]
    assert (tmp_path / "h").read_bytes().startswith(line(RECORD) + b"\n" + broken + b"\n")


def _add_many(path):
    for _ in range(20):
        History(path).add(RECORD)


def test_processes_share_a_history(tmp_path):
    path = tmp_path / "h"
    writers = [multiprocessing.get_context("fork").Process(target=_add_many, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (len(History(path).records()), History(path).damaged()) == (60, 0)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "real").write_bytes(b"mine")
    os.symlink(tmp_path / "real", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            History(tmp_path / name).add(RECORD)
    assert (tmp_path / "real").read_bytes() == b"mine"
