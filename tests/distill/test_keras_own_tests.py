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
from tfdistill.distill.teachers.freeze import Freeze

# Their LogitsDistillation has the default that computes on raw logits; saying so is our job, not their tests'.
# The same goes for their losses on the labels, which take probabilities where their models answer logits.
pytestmark = [
    pytest.mark.filterwarnings("ignore:keras.distillation.LogitsDistillation:UserWarning"),
    pytest.mark.filterwarnings("ignore:The student's loss:UserWarning"),
]

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


# Two of Keras's tests assert that a teacher is frozen for ever by making a Distiller of it. Ours freezes it while `fit` runs, and those two are adapted.


def _initialization_but_for_the_freeze(test):
    def test_distiller_initialization(self):
        # Keras's first assertion is that the teacher is frozen; the others are about the Distiller.
        with Freeze(self.teacher):
            test(self)

    return test_distiller_initialization


def _frozen_while_it_teaches(self):
    during = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: during.append(self.teacher.trainable))
    self.distiller.fit(self.x, self.y, epochs=1, verbose=0, callbacks=[watch])
    assert during
    assert not any(during)
    assert self.teacher.trainable
    assert self.student.trainable


_OF_DISTILLER = CASES["distiller_test_TestDistiller"]
_OF_DISTILLER.test_distiller_initialization = _initialization_but_for_the_freeze(_OF_DISTILLER.test_distiller_initialization)
_OF_DISTILLER.test_teacher_freezing = _frozen_while_it_teaches
globals().update(CASES)


@pytest.mark.parametrize("module", MODULES)
def test_the_adapted_tests_use_our_distiller(module):
    assert ADAPTED[module].Distiller is tfdistill.Distiller
    assert keras.distillation.Distiller is not tfdistill.Distiller


def test_no_test_of_theirs_is_lost():
    counted = sum(len(unittest.TestLoader().getTestCaseNames(case)) for case in CASES.values())
    written = sum(inspect.getsource(adapted).count("    def test_") for adapted in ADAPTED.values())
    assert counted >= written >= 13
