"""Splits some of whose parts nothing reads: the frozen graph has a slice for each part that is read, and computes the same."""

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.bridge.frozen import frozen

X = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
# Function of a (2, 4, 6) tensor -> (the function, how many operations with several parts are left).
CASES = {
    "the first": (lambda x: tf.nn.relu(tf.split(x, 3, -1)[0]), 0),
    "the last": (lambda x: tf.nn.relu(tf.split(x, 3, -1)[2]), 0),
    "two of three": (lambda x: tf.split(x, 3, -1)[0] * tf.split(x, 3, -1)[2], 0),
    "two of three of one": (lambda x: (lambda parts: parts[0] * parts[2])(tf.split(x, 3, -1)), 0),
    "all": (lambda x: (lambda parts: parts[0] * parts[1])(tf.split(x, 2, 1)), 1),
    "by sizes": (lambda x: tf.nn.relu(tf.split(x, [1, 2, 3], -1)[1]), 0),
    "all by sizes": (lambda x: (lambda parts: tf.concat(parts[::-1], -1))(tf.split(x, [1, 5], -1)), 1),
    "of unstacked": (lambda x: tf.nn.relu(tf.unstack(x, axis=1)[3]), 0),
    "of unstacked, from behind": (lambda x: tf.nn.relu(tf.unstack(x, axis=-1)[2]), 0),
    "all of unstacked": (lambda x: tf.add_n(tf.unstack(x, axis=1)), 1),
    "of a part": (lambda x: tf.nn.relu(tf.split(tf.split(x, 2, -1)[1], 3, -1)[1]), 0),
    "of a part, unstacked": (lambda x: tf.nn.relu(tf.unstack(tf.split(x, 2, 1)[1], axis=1)[0]), 0),
    "the result itself": (lambda x: tf.raw_ops.Split(axis=-1, value=x, num_split=2)[1], None),
    "none is there": (lambda x: tf.nn.relu(x), 0),
}


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("case", CASES)
def test_the_frozen_graph_computes_the_same(case, batch):
    function, left = CASES[case]

    @tf.function(input_signature=[tf.TensorSpec((batch, 4, 6), tf.float32, name="x")])
    def serve(x):
        return {"y": function(x)}

    concrete = serve.get_concrete_function()
    graph = frozen(concrete)
    output = graph.outputs["y"].name
    with tf.Graph().as_default() as fresh:
        (made,) = tf.import_graph_def(graph.definition, name="", return_elements=[output])
        with tf.compat.v1.Session(graph=fresh) as session:
            found = session.run(made, {"x:0": X})
    np.testing.assert_array_equal(found, function(tf.constant(X)).numpy())
    several = [node for node in graph.definition.node if node.op in ("Split", "SplitV", "Unpack")]
    assert left is None or len(several) == left
