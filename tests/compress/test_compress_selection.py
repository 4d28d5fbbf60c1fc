"""Which layers a step works on."""

import pytest

from tfdistill.compress.selection import select, selectors
from tfdistill.errors import ConfigurationError, ModelError

LAYERS = {"conv1": 1, "conv2": 2, "encoder/conv1": 3, "encoder/dense": 4, "logits": 5}


@pytest.mark.parametrize(
    ("include", "exclude", "chosen", "named"),
    [
        (None, None, set(LAYERS), set()),
        ("conv1", None, {"conv1"}, {"conv1"}),
        ("conv*", None, {"conv1", "conv2"}, set()),
        (["encoder/*", "logits"], None, {"encoder/conv1", "encoder/dense", "logits"}, {"logits"}),
        ("encoder", None, {"encoder/conv1", "encoder/dense"}, set()),
        (None, "logits", set(LAYERS) - {"logits"}, set()),
        (["conv1", "conv2"], "conv2", {"conv1"}, {"conv1"}),
        (lambda layer: layer > 3, None, {"encoder/dense", "logits"}, set()),
        (None, lambda layer: layer > 1, {"conv1"}, set()),
        (lambda layer: False, None, set(), set()),
    ],
)
def test_selection(include, exclude, chosen, named):
    assert select(LAYERS, selectors(include, "layers"), selectors(exclude, "exclude")) == (chosen, named)


@pytest.mark.parametrize(("include", "exclude"), [("logit", None), (None, "logit"), ("xyz*", None)])
def test_what_matches_nothing_is_an_error(include, exclude):
    with pytest.raises(ModelError, match=r"Nearest|There are"):
        select(LAYERS, selectors(include, "layers"), selectors(exclude, "exclude"))


@pytest.mark.parametrize("value", [[], 3, [3], {"a": 1}])
def test_what_selects_nothing_is_refused(value):
    with pytest.raises(ConfigurationError, match="layers="):
        selectors(value, "layers")
