"""What the library needs of `keras.src`: the one module that names it, as Keras may move what is inside between versions.

Each function reads one thing. tests/bridge/test_keras_internals.py shows what each of them stands for, and so what breaks when Keras moves it.
"""


def is_keras_own(kind):
    """Whether a class is Keras's own, and not a user's."""
    return kind.__module__.startswith("keras.src.")


def is_keras_operation(kind):
    """Whether a class is that of an operation of `keras.ops`."""
    return kind.__module__.startswith("keras.src.ops.")


def loads_in_safe_mode():
    """Returns whether Keras loads in safe mode now: True, False, or None where nothing was set, which counts as True."""
    from keras.src.saving import serialization_lib

    return serialization_lib.in_safe_mode()


def epoch_iterator_class():
    """Returns the class of the iterator over the epochs of a `keras.Model.fit`."""
    from keras.src.trainers.epoch_iterator import EpochIterator

    return EpochIterator


def global_seed_generator():
    """Returns the `keras.random.SeedGenerator` of random layers and functions that are given no seed; makes it if there is none yet."""
    from keras.src.random import seed_generator

    return seed_generator.global_seed_generator()


def has_global_seed_generator():
    """Whether `global_seed_generator` was made already."""
    from keras.src.backend.common import global_state

    # Keras 3.12 has no constant for this key.
    return global_state.get_global_attribute("global_seed_generator") is not None
