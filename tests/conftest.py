"""What all tests share: seeds, and small models and data that are quick to train."""

import functools
import gc
import importlib.util
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

# Only some releases of Keras are installed with their own tests; those of requirements.txt are (tests/test_compatibility.py).
OF_KERAS = ["distill/test_keras_own_tests.py", "distill/test_backup_keras.py"]
collect_ignore = [] if importlib.util.find_spec("keras.src.distillation.distiller_test") else OF_KERAS


CACHED = type(functools.cache(len))
# Test functions that `make quick` leaves out, as they take long; made by tests/find_thorough.py.
THOROUGH = frozenset(pathlib.Path(__file__).with_name("thorough.txt").read_text(encoding="utf-8").split())


# Folder of the trained nets of MLPerf Tiny (mlcommons/tiny, benchmark/training); without it the tests whose names end in `_of_mlperf_tiny` are left out.
MLPERF_TINY = os.environ.get("TFDISTILL_MLPERF_TINY")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.nodeid.partition("[")[0] in THOROUGH:
            item.add_marker("thorough")
    if not MLPERF_TINY:
        left_out = [item for item in items if item.nodeid.partition("[")[0].endswith("_of_mlperf_tiny")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session(free_memory=False)


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
