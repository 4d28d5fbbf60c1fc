"""Names of a file's tensors: all different, whatever the converter wrote, and those of inputs and outputs as they have to be."""

import hypothesis
import hypothesis.strategies as st
import pytest

from tfdistill.convert.short_names import shorten_names
from tfdistill.runtime.schema import schema

classes = schema()
# Few words, so that many names are equal, or differ in a number only; some are those that the function gives itself, or have characters of templates.
WORDS = st.sampled_from(["lstm", "add", "add_1", "add_12", "1", "2", "{0}", "quant_lstm", "lstm.1", "%s", ""])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map("/".join)


def shortened(names):
    """The short names of a graph whose first tensor is its input `x` and whose last is its output; an operation writes each of the others from the one before it."""
    graph, signature = classes.SubGraphT(), classes.SignatureDefT()
    graph.tensors = [classes.TensorT() for _ in names]
    for tensor, name in zip(graph.tensors, names, strict=True):
        tensor.name = name.encode()
    graph.inputs, graph.outputs, graph.operators = [0], [len(names) - 1], [classes.OperatorT() for _ in names[1:]]
    for place, operator in enumerate(graph.operators):
        operator.inputs, operator.outputs = [place], [place + 1]
    entry = classes.TensorMapT()
    entry.name, entry.tensorIndex = b"x", 0
    signature.inputs, signature.subgraphIndex = [entry], 0
    model = classes.ModelT()
    model.subgraphs, model.signatureDefs = [graph], [signature]
    shorten_names(model)
    return [tensor.name.decode() for tensor in graph.tensors]


def steps(layer):
    return [f"{layer}/add_{i}" for i in range(40)]


def compact(number):
    """A number below 62 * 62 in digits and letters, as an independent list has them."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [a + b for a in ("", *digits[1:]) for b in digits][number]


@hypothesis.given(st.lists(NAMES, min_size=2, max_size=12), st.integers(0, 40))
@hypothesis.settings(max_examples=200, deadline=None)
def test_all_names_are_different(names, steps):
    found = shortened(["input", *names, *(f"net/lstm/add_{i}" for i in range(steps)), *["net/lstm/mul"] * steps, "lstm/1", "output"])
    assert len(set(found)) == len(found)
    assert found[0] == "serving_default_x:0"
    assert found[-1] == "StatefulPartitionedCall:0"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["net/conv/Conv2D;net/conv/BiasAdd", "net/conv/Conv2D;other", "net/dense/MatMul"],
            ["conv/Conv2D", "conv/Conv2D.1", "dense/MatMul"],
        ),
        (["net/dense/x", *(f"net/lstm/cell/add_{i}" for i in range(40))], ["dense/x", *(f"lstm/{compact(i + 1)}" for i in range(40))]),
        (["net/dense/x", *steps("net/inner/lstm/cell")], ["dense/x", *(f"inne/{compact(i + 1)}" for i in range(39)), "inner/lstm/1"]),
        (["net/dense/x", *steps("net/rnn")], ["dense/x", *(f"rnn/{compact(i + 1)}" for i in range(40))]),
        # A layer is found by its name: what is not of it must not bear it.
        (["net/encoder/enco/x", *steps("net/encoder_1")], ["encoder/enco/x", *(f"enc/{compact(i + 1)}" for i in range(39)), "encoder_1/1"]),
        (
            ["net/dense/x", *steps("net/encoder"), *steps("net/encoder_1")],
            ["dense/x"]
            + [f"enco/{compact(i + 1)}" for i in range(39)]
            + ["encoder/1"]
            + [f"enc/{compact(i + 1)}" for i in range(39)]
            + ["encoder_1/1"],
        ),
        (["net/quant_conv/conv/Conv2D", "net/quant_dense/x"], ["conv/Conv2D", "dense/x"]),
    ],
)
def test_names_begin_with_the_layer(names, expected):
    assert shortened(["in", *names, "out"])[1:-1] == expected
