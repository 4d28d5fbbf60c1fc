"""Convolutions of groups in graphs that become files.

tf_keras compiles a convolution of several groups by XLA, as processors have no gradient of it otherwise. In the graph it is a function of its own then, and what the
converter makes of that does not have the name of the layer.
"""

import contextlib
import sys


@contextlib.contextmanager
def grouped_in_the_graph():
    """While open, convolutions of several groups are traced as operations of the graph, as all others are."""
    legacy = sys.modules.get("tf_keras")  # where it is not imported, which takes seconds, there is no such layer
    owners = () if legacy is None else legacy.layers.Conv2D.__mro__
    owner = next((one for one in owners if "_jit_compiled_convolution_op" in vars(one)), None)
    if owner is None:
        yield
        return
    compiled = vars(owner)["_jit_compiled_convolution_op"]
    owner._jit_compiled_convolution_op = lambda layer, inputs, kernel: layer.convolution_op(inputs, kernel)
    try:
        yield
    finally:
        owner._jit_compiled_convolution_op = compiled
