"""The table of how TFLite computes each class of layer in integers."""

import keras
import pytest

from tfdistill.bridge import imports
from tfdistill.bridge.integer.layers import FORMS
from tfdistill.compress.quantize.layer_table import RULES, LayerRule, rule_of

NAMES = [name for rule in RULES for name in rule.classes]


def test_each_class_is_in_one_row():
    assert len(NAMES) == len(set(NAMES))


def test_the_classes_exist():
    # Layers that tf_keras lacks are hosted; that of keras.layers.GroupQueryAttention is of another name, and operations are layers of the bridge's.
    known = {*dir(imports.tf_keras().layers), *dir(keras.layers), "GroupedQueryAttention", "KerasOperation", "TFOpLambda", "WithMask"}
    assert [name for name in NAMES if name not in known] == []


@pytest.mark.parametrize("form", [rule.form for rule in RULES if rule.form])
def test_each_form_is_known(form):
    assert form in FORMS


def test_a_class_without_a_row_has_a_range_of_its_own():
    rule = rule_of("LeakyReLU")
    assert rule == LayerRule(("LeakyReLU",))
    assert rule.integers
    assert not rule.passes(None)
