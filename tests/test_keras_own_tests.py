"""Keras's own tests of its Distiller, as they are installed with Keras, run with ours in its place.

The modules are imported with `Distiller` replaced and their test cases are collected here, so tests that a newer Keras adds come by themselves.
"""

import importlib
import inspect
import sys
import unittest

import keras
import pytest

import tfdistill

# Their LogitsDistillation has the default that computes on raw logits; saying so is our job, not their tests'.
pytestmark = pytest.mark.filterwarnings("ignore:keras.distillation.LogitsDistillation:UserWarning")

PACKAGE = "keras.src.distillation"
MODULES = ("distiller_test", "distillation_loss_test")


def _with_our_distiller(module):
    theirs = importlib.import_module(f"{PACKAGE}.distiller")
    before = theirs.Distiller
    sys.modules.pop(f"{PACKAGE}.{module}", None)
    theirs.Distiller = tfdistill.Distiller
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    finally:
        theirs.Distiller = before


ADAPTED = {name: _with_our_distiller(name) for name in MODULES}
CASES = {
    f"{module}_{name}": case
    for module, adapted in ADAPTED.items()
    for name, case in inspect.getmembers(adapted, inspect.isclass)
    if issubclass(case, unittest.TestCase) and case.__module__ == adapted.__name__
}
globals().update(CASES)


@pytest.mark.parametrize("module", MODULES)
def test_the_adapted_tests_use_our_distiller(module):
    assert ADAPTED[module].Distiller is tfdistill.Distiller
    assert keras.distillation.Distiller is not tfdistill.Distiller


def test_no_test_of_theirs_is_lost():
    counted = sum(len(unittest.TestLoader().getTestCaseNames(case)) for case in CASES.values())
    written = sum(inspect.getsource(adapted).count("    def test_") for adapted in ADAPTED.values())
    assert counted >= written >= 13
