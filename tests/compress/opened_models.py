"""Models in their tf_keras form, each converted, and compared with the original, once for all tests of a process."""

import functools

import keras

from tfdistill.bridge import AdoptedModel, adopt, to_tf_keras


@functools.cache
def opened(make) -> AdoptedModel:
    """Returns the adopted form of the model that `make()` returns, the same one every time.

    It is for tests that plan or apply a step: neither changes the model, and neither converts it again. A test that trains it, or changes its
    weights, takes a model of its own.
    """
    keras.utils.set_random_seed(7)
    model = make()
    return adopt(to_tf_keras(model), original=model)
