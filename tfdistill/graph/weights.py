"""What identifies the weights of a model."""

import hashlib

import keras
import numpy as np


def sha256_of_weights(model):
    """Computes the SHA-256 of all weights of a Keras model in their order, with their shapes and types, in hexadecimal."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
