"""The layers inside a layer or model, as Keras keeps them: Keras's private list of them is read here."""

import os

# Classes of layers that look up tables, which a .tflite file cannot.
LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "HashedCrossing")
# Classes of layers that hand each number on as it is at inference.
IDLE = (
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
)


def all_layers(model):
    """Lists a layer or model and everything inside it, at any depth.

    Reads `Layer._flatten_layers`: Keras has no public way to the layers inside a layer that is no model. If Keras renames it, this fails
    with an AttributeError at the first call.

    Args:
        model: A Keras 3 or tf_keras layer or model.

    Returns:
        List of layers, the model itself first.
    """
    return list(model._flatten_layers())


def child_layers(layer):
    """Lists the layers directly inside a layer or model.

    Reads `Layer._flatten_layers`, like `all_layers`.

    Args:
        layer: A Keras 3 or tf_keras layer or model.

    Returns:
        List of layers: of a functional model from input to output, else in the order in which they were made.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def has_attention_scores(layer):
    """Tells whether a layer is multi-head attention.

    Such a layer returns scores of shape (batch, heads, queries, keys) if it is called with `return_attention_scores=True`.

    Looks for `_compute_attention`, which MultiHeadAttention and GroupQueryAttention of both Keras have and `keras.layers.Attention`, whose
    scores have no axis of heads, has not. If Keras renames it, the taps refuse the scores of every layer with a ModelError.
    """
    return hasattr(layer, "_compute_attention")


def attention_projections(layer):
    """Returns the dense layers inside multi-head or grouped attention: dict of `"query"`, `"key"`, `"value"`, `"output"`, and `"gate"` where there is one.

    Reads `_query_dense` and the like, which grouped attention has no public names for.
    """
    found = {name: getattr(layer, f"_{name}_dense", None) for name in ("query", "key", "value", "gate", "output")}
    return {name: dense for name, dense in found.items() if dense is not None}


def lambda_arguments(layer):
    """Returns the arguments of the constructor that a Lambda layer was made with, its functions as they are."""
    own = {"function": layer.function, "output_shape": layer._output_shape, "mask": layer.mask, "arguments": layer.arguments}
    return {**layer.get_config(), **own}


def loading_of(given):
    """Returns the remedy where something else was given for a Keras 3 model: for a path, and for a model of tf_keras; empty for all else."""
    if isinstance(given, (str, os.PathLike)):
        return "load it first: tfdistill.load_model(path)"
    return "tfdistill.to_keras(model) makes a Keras 3 model of it" if type(given).__module__.startswith("tf_keras") else ""
