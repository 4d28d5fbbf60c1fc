"""Adopts tf_keras models as Keras 3 models, and reads the wrappers inside them."""
