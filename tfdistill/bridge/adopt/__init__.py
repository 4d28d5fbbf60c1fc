"""Adopts tf_keras models as Keras 3 models, and looks into the wrappers inside them."""
