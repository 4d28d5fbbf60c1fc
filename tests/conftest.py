"""What all tests share: seeds, and small models and data that are quick to train."""

import collections
import functools
import gc
import importlib.util
import os
import pathlib
import shutil
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The models are tiny, and each core has a process of its own: a pool of threads that spin while they wait for work takes a sixth of the time of all.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import keras
import numpy as np
import pytest

# Only some releases of Keras are installed with their own tests; those of requirements.txt are (tests/test_compatibility.py).
OF_KERAS = ["distill/test_keras_own_tests.py", "distill/test_backup_keras.py"]
collect_ignore = [] if importlib.util.find_spec("keras.src.distillation.distiller_test") else OF_KERAS


CACHED = type(functools.cache(len))


def _listed(name):
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8").split()


# Test functions that `make quick` leaves out, and modules that are run first, as they take long; made by tests/find_thorough.py.
THOROUGH, LONGEST = frozenset(_listed("thorough.txt")), _listed("longest.txt")
# Test function -> n: each n-th of its rows is run for every change, from the first on, and all of them by `make test-release`. These rows take the same road, one kind of
# layer, model or loss each, and would take half of the time of all tests.
_words = _listed("sampled.txt")
SAMPLED = {function: int(n) for function, n in zip(_words[::2], _words[1::2], strict=True)}


# Folder of the trained nets of MLPerf Tiny (mlcommons/tiny, benchmark/training); without it the tests whose names end in `_of_mlperf_tiny` are left out.
MLPERF_TINY = os.environ.get("TFDISTILL_MLPERF_TINY")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    _put_longest_first(items)
    for item in items:
        if item.nodeid.partition("[")[0] in THOROUGH:
            item.add_marker("thorough")
    for item in not_sampled(items, SAMPLED):
        item.add_marker("release")
    if not MLPERF_TINY:
        left_out = [item for item in items if item.nodeid.partition("[")[0].endswith("_of_mlperf_tiny")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def not_sampled(items, sampled):
    """Lists the items of functions of which each n-th row is run, but for these rows."""
    rows = collections.defaultdict(list)
    for item in items:
        rows[item.nodeid.partition("[")[0]].append(item)
    return [item for function, n in sampled.items() for number, item in enumerate(rows[function]) if number % n]


def pytest_collection_finish():
    """Collects garbage rarely: one in ten seconds went into it, as tracing a function makes many objects, and most of them stay until the test ends."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _put_longest_first(items):
    """Orders the modules of the tests: those with the longest tests first, in both halves of the list, as each of two processes begins with one half."""
    modules = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    ranks = {module: rank for rank, module in enumerate(LONGEST)}
    ordered = [modules[name] for name in sorted(modules, key=lambda name: ranks.get(name, len(ranks)))]
    items[:] = [item for half in (ordered[::2], ordered[1::2]) for module in half for item in module]


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session(free_memory=False)


# Programs of the packages that tests/install_system_packages.sh installs for the slow tests.
OF_PACKAGES = {"cc", "gcc", "g++", "cmake", "node", "npm", "java", "chromium", "ssh", "sshd", "scp", "ps"}


@pytest.fixture(autouse=True)
def _fast_without_packages(request, monkeypatch):
    """Fails a fast test that runs a program of these packages: `make test` works on a machine that has none of them."""
    if any(map(request.node.get_closest_marker, ("slow", "release"))):
        return

    class Popen(subprocess.Popen):
        def __init__(self, args, *others, **settings):
            program = args.split()[0] if isinstance(args, str) else os.fsdecode(args[0])
            found = shutil.which(program, path=(settings.get("env") or os.environ).get("PATH")) or ""
            stand_in = not found.startswith(("/usr/", "/bin/"))  # of the test's own folder
            assert stand_in or pathlib.Path(found).name not in OF_PACKAGES, f"a fast test runs '{program}': mark it slow"
            super().__init__(args, *others, **settings)

    monkeypatch.setattr(subprocess, "Popen", Popen)


@pytest.fixture(autouse=True, scope="module")
def _settled_garbage(request):
    """Lets go of the models that a module's tests shared, and takes what is left out of the garbage collector's sight.

    TensorFlow keeps thousands of Python objects for each function that it traced. After some thousand tests every full collection walks
    over millions of them and takes a minute. What is out of sight is never collected, so nothing may still hold a model then.
    """
    yield
    for value in vars(request.module).values():
        if isinstance(value, CACHED) and not value.__module__.startswith("tfdistill"):
            value.cache_clear()
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng():
    return np.random.default_rng(7)
