"""Several devices, one result: two workers and two devices of one machine end where one device ends with the same global batch."""

import json
import pathlib
import socket

import fresh
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.distill.distributed import local_part, spans_workers

JOB = pathlib.Path(__file__).with_name("two_workers_job.py")
LIMIT_SECONDS = 240


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def start(path, how, config=None):
    environment = {name: value for name, value in fresh.several_devices().items() if name != "TF_CONFIG"}
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    return fresh.Running(JOB, path, how, env=environment)


def finish(processes):
    """Waits for all of them; the output of one is shown if it failed or did not end in time."""
    try:
        ended = [process.finish(LIMIT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for one in ended:
        assert one.returncode == 0, (one.stdout + one.stderr)[-4000:]


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def compare(found, expected, tolerance):
    assert set(found) == set(expected)
    for name in set(expected) - {"replicas"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "end.npz"
    finish([start(path, "alone")])
    return arrays(path)


@pytest.mark.slow
def test_two_workers_end_as_one(alone, tmp_path):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    ends = [tmp_path / f"worker_{i}.npz" for i in range(2)]
    cluster = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(2)]
    finish([start(path, "worker", config) for path, config in zip(ends, cluster, strict=True)])
    first, second = map(arrays, ends)
    compare(first, second, 0.0)
    assert int(first["replicas"]) == 2
    compare(first, alone, 1e-5)


@pytest.mark.slow
def test_two_devices_of_one_machine_end_as_one(alone, tmp_path):
    finish([start(tmp_path / "end.npz", "mirrored")])
    found = arrays(tmp_path / "end.npz")
    assert int(found["replicas"]) == 2
    compare(found, alone, 1e-5)


@pytest.mark.slow
def test_a_failed_worker_is_told_of(tmp_path):
    with pytest.raises(AssertionError, match="unknown_folder"):
        finish([start(tmp_path / "unknown_folder" / "end.npz", "alone")])


@pytest.mark.parametrize("name", ["a", "replicas_apart"])
def test_results_that_differ_are_found(name):
    same = {"a": np.ones(2), "replicas": 2}
    other = {"a": np.ones(2) + 1e-3, "replicas": 2} if name == "a" else {"a": np.ones(2)}
    compare(same, dict(same), 0.0)
    with pytest.raises(AssertionError):
        compare(same, other, 1e-5)


STRATEGIES = {"none": tf.distribute.get_strategy, "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:0")}


@pytest.mark.parametrize("kind", STRATEGIES)
def test_one_process_needs_no_change(kind):
    strategy = STRATEGIES[kind]()
    assert not spans_workers(strategy)
    batch = {"x": tf.ones((2, 3)), "y": tf.experimental.Optional.empty(None)}
    part = local_part(batch, strategy)
    assert part["x"].shape == (2, 3)
    assert part["y"] is None
