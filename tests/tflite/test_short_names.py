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
    """The short names of a graph whose first tensor is its input `x` and whose last is its output."""
    graph, signature = classes.SubGraphT(), classes.SignatureDefT()
    graph.tensors = [classes.TensorT() for _ in names]
    for tensor, name in zip(graph.tensors, names, strict=True):
        tensor.name = name.encode()
    graph.inputs, graph.outputs = [0], [len(names) - 1]
    entry = classes.TensorMapT()
    entry.name, entry.tensorIndex = b"x", 0
    signature.inputs, signature.subgraphIndex = [entry], 0
    model = classes.ModelT()
    model.subgraphs, model.signatureDefs = [graph], [signature]
    shorten_names(model)
    return [tensor.name.decode() for tensor in graph.tensors]


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
        (["net/dense/x", *(f"net/lstm/cell/add_{i}" for i in range(20))], ["dense/x", *(f"lstm/{i + 1}" for i in range(20))]),
        (["net/dense/x", *(f"net/inner/lstm/cell/add_{i}" for i in range(20))], ["dense/x", *(f"inner/lstm/{i + 1}" for i in range(20))]),
        (["net/dense/x", *(f"net/rnn/add_{i}" for i in range(20))], ["dense/x", *(f"rnn/{i + 1}" for i in range(20))]),
        (["net/quant_conv/conv/Conv2D", "net/quant_dense/x"], ["conv/Conv2D", "dense/x"]),
    ],
)
def test_names_begin_with_the_layer(names, expected):
    assert shortened(["in", *names, "out"])[1:-1] == expected
