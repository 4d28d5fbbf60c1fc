"""What the library reads of `keras.src`: each test fails when Keras moves what it is about."""

import keras
import numpy as np
import pytest

from tfdistill.graph import keras_internals


class OfUser(keras.layers.Dense):
    """A layer class that is not Keras's own."""


@pytest.mark.parametrize(
    ("kind", "own", "operation"),
    [
        (keras.layers.Dense, True, False),
        (keras.Model, True, False),
        (type(keras.ops.add(keras.Input((2,)), 1.0)._keras_history.operation), True, True),
        (OfUser, False, False),
        (dict, False, False),
    ],
)
def test_classes_of_keras_are_known(kind, own, operation):
    assert (keras_internals.is_keras_own(kind), keras_internals.is_keras_operation(kind)) == (own, operation)


@pytest.mark.parametrize("safe", [True, False])
def test_the_safe_mode_is_read(safe):
    class Reader(keras.layers.Layer):
        @classmethod
        def from_config(cls, config):
            found.append(keras_internals.loads_in_safe_mode())
            return cls(**config)

    found = []
    config = keras.saving.serialize_keras_object(Reader())
    keras.saving.deserialize_keras_object(config, custom_objects={"Reader": Reader}, safe_mode=safe)
    assert found == [safe]


def test_fit_has_an_epoch_iterator():
    kinds = []

    class Looking(keras.Model):
        def make_train_function(self, force=False):
            super().make_train_function(force)
            run = self.train_function

            def looking(iterator):
                import sys

                kinds.append(type(sys._getframe(1).f_locals["epoch_iterator"]))
                return run(iterator)

            self.train_function = looking

    inputs = keras.Input((2,))
    model = Looking(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 2)), np.zeros((2, 1)), verbose=0)
    assert issubclass(kinds[0], keras_internals.epoch_iterator_class())


def test_the_global_seed_generator_decides_what_layers_without_a_seed_draw():
    keras.utils.clear_session()
    assert not keras_internals.has_global_seed_generator()
    generator = keras_internals.global_seed_generator()
    assert keras_internals.has_global_seed_generator()
    before = np.array(generator.state)
    first = np.array(keras.random.uniform((3,)))
    generator.state.assign(before)
    np.testing.assert_array_equal(keras.random.uniform((3,)), first)
