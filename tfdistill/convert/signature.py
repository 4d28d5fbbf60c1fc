"""Names, shapes and types of a model's inputs and outputs, as the signature of the file has them."""

import dataclasses
import re

import keras

from tfdistill.errors import ModelError
from tfdistill.graph.tracing import input_types


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """One input of a model.

    Attributes:
        key: Name in the model.
        name: Name in the file: `key` with an underscore for everything that is not a letter, digit or underscore.
        batch: Batch size that the model was built for; None for any.
        shape: Shape without the batch, with None for an axis of any length.
        dtype: Type, for example `"float32"`.
    """

    key: str
    name: str
    batch: int | None
    shape: tuple
    dtype: str


@dataclasses.dataclass(frozen=True)
class ModelSignature:
    """All inputs of a model in flattened order, the structure that its `call` takes them in, and the names of its outputs."""

    inputs: tuple[ModelInput, ...]
    structure: object
    output_keys: tuple[str, ...] | None

    @property
    def batch_size(self):
        """Batch size that the model was built for; 1 where it takes any."""
        return next((i.batch for i in self.inputs if i.batch is not None), 1)

    def pack(self, arrays):
        """Packs a dict of input name -> array into the structure that the model takes."""
        return keras.tree.pack_sequence_as(self.structure, [arrays[i.name] for i in self.inputs])

    def name_outputs(self, outputs):
        """Converts the output of the model to a dict of output name -> tensor, in flattened order."""
        flat = keras.tree.flatten(outputs)
        if isinstance(outputs, dict):
            keys = [_key(path) for path, _ in keras.tree.flatten_with_path(outputs)]
        elif self.output_keys is not None and len(self.output_keys) == len(flat):
            keys = self.output_keys
        else:
            keys = [f"output_{i}" for i in range(len(flat))]
        return dict(zip(_identifiers(keys), flat, strict=True))


def describe(model):
    """Returns the names, shapes and types of a model's inputs and outputs.

    Args:
        model: A built Keras 3 model (functional, Sequential or subclassed), or an adopted tf_keras model.

    Returns:
        A `ModelSignature`.

    Raises:
        ModelError: if it is not a Keras model or not built.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"A {type(model).__module__}.{type(model).__name__} cannot be exported.",
            "a keras.Model (Keras 3)",
            "adopt a tf_keras model first: tfdistill.bridge.adopt",
        )
    from tfdistill.bridge.adopt.adopt import AdoptedModel  # needed here only

    source = model.legacy if isinstance(model, AdoptedModel) else model
    if not source.built:
        raise ModelError(
            f"The model '{model.name}' is not built.", "a model that knows its input shapes", "call it once, or give it a keras.Input"
        )
    tensors = getattr(source, "inputs", None)
    if not tensors:
        return _from_build_config(model)
    # A Sequential has only a list of tensors; other models know the structure that they were built with.
    structure = tensors[0] if isinstance(source, keras.Sequential) else _plain(source.input)
    paths = keras.tree.flatten_with_path(structure)
    keys = [_key(path) if isinstance(structure, dict) else tensor.name.partition(":")[0] for path, tensor in paths]
    inputs = tuple(
        ModelInput(key, name, tensor.shape[0], tuple(tensor.shape[1:]), _dtype_name(tensor.dtype))
        for key, name, (_, tensor) in zip(keys, _input_names(keys), paths, strict=True)
    )
    texts = [i.key for i in inputs if i.dtype == "string"]
    if texts:
        raise ModelError(
            f"The input '{texts[0]}' of the model '{model.name}' is text, which a .tflite file cannot take.",
            "numbers",
            "turn text into indices in the data pipeline, and give the model a keras.Input of dtype='int32'",
        )
    # Keras names an output after its layer; Sequential alone has no `output_names`. An adopted model gives the user's names for wrapped layers.
    output_keys = (source.layers[-1].name,) if isinstance(source, keras.Sequential) else getattr(model, "output_names", None)
    return ModelSignature(inputs, structure, tuple(output_keys) if output_keys else None)


def output_shapes(model, signature):
    """Returns a dict of output name -> shape with None for a size that is not fixed, or None for a model that does not know its outputs before a call.

    Args:
        model: A model, as `describe` takes it.
        signature: Its `ModelSignature`.
    """
    from tfdistill.bridge.adopt.adopt import AdoptedModel  # needed here only

    source = model.legacy if isinstance(model, AdoptedModel) else model
    if not getattr(source, "outputs", None):
        return None
    structure = source.outputs[0] if isinstance(source, keras.Sequential) else _plain(source.output)
    return {name: tuple(tensor.shape) for name, tensor in signature.name_outputs(structure).items()}


def _from_build_config(model):
    # A subclassed model only knows the shapes that it was built with, and no types.
    config = model.get_build_config() or {}
    shapes = config.get("input_shape", config.get("shapes_dict"))
    if shapes is None:
        raise ModelError(
            f"The input shapes of the subclassed model '{model.name}' are unknown.",
            "a model whose `build` or first call recorded its input shape",
            "call it once on a batch of data",
        )
    structure = _shapes_as_leaves(shapes)
    paths = keras.tree.flatten_with_path(structure)
    keys = [_key(path) if path else "inputs" for path, _ in paths]
    inputs = tuple(
        ModelInput(key, name, None, leaf.shape[1:], dtype)
        for key, name, (_, leaf), dtype in zip(keys, _input_names(keys), paths, input_types(model, len(keys)), strict=True)
    )
    return ModelSignature(inputs, structure, None)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    shape: tuple


def _shapes_as_leaves(shapes):
    if isinstance(shapes, dict):
        return {key: _shapes_as_leaves(value) for key, value in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return _Leaf(tuple(shapes))
    return [_shapes_as_leaves(value) for value in shapes]


def _plain(structure):
    # Keras and tf_keras wrap lists and dicts for tracking; plain ones are enough here.
    if isinstance(structure, dict):
        return {key: _plain(value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_plain(value) for value in structure]
    return structure


def _key(path):
    return "_".join(str(part) for part in path)


def _dtype_name(dtype):
    name = dtype if isinstance(dtype, str) else dtype.name
    return "float32" if name in ("float16", "bfloat16") else name  # a file's float inputs are float32


def _input_names(keys):
    """Returns names of inputs: TensorFlow's begin with a letter of ASCII, have no other letters, and differ by more than upper and lower case."""
    names = []
    for name in _identifiers(keys):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if plain[:1].isalpha() else f"input_{plain.lstrip('_')}"
        unique, suffix = plain, 1
        while unique.lower() in map(str.lower, names):
            unique, suffix = f"{plain}_{suffix}", suffix + 1
        names.append(unique)
    return names


def _identifiers(keys):
    names = []
    for key in keys:
        name = re.sub(r"\W", "_", key)
        name = f"_{name}" if name[:1].isdigit() else name
        # Two outputs of one layer share a name in Keras; a signature cannot.
        unique, suffix = name, 1
        while unique in names:
            unique, suffix = f"{name}_{suffix}", suffix + 1
        names.append(unique)
    return names
