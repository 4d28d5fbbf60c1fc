"""Opens layers that others wrote: one run of a layer's `call` on symbolic tensors gives a functional model of what is inside.

A weight that the layer itself owns becomes a tensor of the graph for that run (the output of a `HeldWeight`), so that the graph computes with the weight and
not with its value of that moment. A mask that the layer puts on its output is kept by a `WithMask`.
"""

import contextlib
import dataclasses
import functools
import inspect
import warnings

import keras
import numpy as np

from tfdistill.errors import BridgeError
from tfdistill.graph.batches import BATCH, rows_of, with_free_batch, with_rows_of
from tfdistill.graph.carriers import CARRIERS, HeldConstant, HeldWeight, WithMask
from tfdistill.graph.functional import UNSCOPED, filled, functional_model, is_functional, is_sequential, own_arguments
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.masks import mask_of, masked_ids
from tfdistill.graph.tracing import line_of, name_operations, reason_of, required_arguments

_ORIGIN = "_stands_for"
# Where Keras and TensorFlow themselves keep the weights and layers of a layer.
COLLECTIONS = {
    "_trainable_variables",
    "_non_trainable_variables",
    "_layers",
    "_metrics",
    "_seed_generators",
    "_tracker",
    "_tracked",
    _ORIGIN,
}
COLLECTIONS |= {
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
    "_self_unconditional_deferred_dependencies",
}


def is_foreign(operation):
    """Whether an operation of a graph is a layer of a class that is neither Keras's nor this library's.

    A model is one where its call takes several arguments: it has no functional view of its own that could be called in its place.
    """
    if isinstance(operation, keras.Model):
        return not (is_functional(operation) or is_sequential(operation)) and len(required_arguments(operation)) > 1
    return isinstance(operation, keras.layers.Layer) and not isinstance(operation, CARRIERS) and not is_keras_own(type(operation))


def origin(operation):
    """Returns the layer of the user's that a layer in an opened graph stands for; the operation itself where it stands for none."""
    return vars(operation).get(_ORIGIN, operation)


def stand_in(operation, name, kind=None):
    """Returns a second object like a layer or operation, which shares its weights and layers, but has its own name and place in graphs."""
    source = origin(operation)
    made = object.__new__(kind or type(source))
    vars(made).update(vars(operation))
    vars(made).update({"name": name, "_inbound_nodes": [], "_outbound_nodes": [], _ORIGIN: source, **UNSCOPED})
    if isinstance(source, keras.layers.EinsumDense):
        # Its own answer is the shape that it was built with, in which a length may be free that this graph knows.
        vars(made)["compute_output_spec"] = functools.partial(keras.Operation.compute_output_spec, made)
    return made


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a layer is called with, on symbolic inputs of its own.

    Attributes:
        tensors: The tensors among the arguments of the call and their masks, each once.
        inputs: `keras.Input`s of the same shapes and types, in the same order.
        masks: Dict of the position of a tensor that carries a mask to that of the mask.
        args: Arguments of the call, with the inputs in place of the tensors.
        kwargs: The same of its keyword arguments.
    """

    tensors: list
    inputs: list
    masks: dict
    args: tuple
    kwargs: dict

    @classmethod
    def of(cls, call):
        """Makes it of a `graph.Call`."""
        kwargs = own_arguments(call)
        given = [x for x in keras.tree.flatten((call.args, kwargs)) if isinstance(x, keras.KerasTensor)]
        tensors = list({id(x): x for x in [*given, *(mask_of(x) for x in given if mask_of(x) is not None)]}.values())
        places = {id(x): i for i, x in enumerate(tensors)}
        inputs = [with_rows_of(keras.Input(batch_shape=x.shape, dtype=x.dtype, name=f"input_{i}"), x) for i, x in enumerate(tensors)]
        masks = {i: places[id(mask_of(x))] for i, x in enumerate(tensors) if id(mask_of(x)) in places}
        return cls(tensors, inputs, masks, *filled((call.args, kwargs), dict(zip(places, inputs, strict=True))))

    @property
    def free_batch(self):
        """Whether one of the tensors has a first axis of unknown size."""
        return any(x.shape[:1] == (None,) for x in self.inputs)

    def symbolic(self, batch):
        """Returns new inputs with masks, and (args, kwargs) of these.

        Args:
            batch: The number of examples where the size of the first axis is unknown.
        """
        shapes = [(batch * rows_of(x), *x.shape[1:]) if x.shape[:1] == (None,) else x.shape for x in self.inputs]
        inputs = [keras.Input(batch_shape=shape, dtype=x.dtype, name=x.name) for shape, x in zip(shapes, self.inputs, strict=True)]
        self.put_masks(inputs)
        return inputs, filled((self.args, self.kwargs), dict(zip(map(id, self.inputs), inputs, strict=True)))

    def on(self, arrays):
        """Returns the tensors for arrays in the order of the inputs, with masks, and (args, kwargs) of these tensors."""
        tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
        self.put_masks(tensors)
        return tensors, filled((self.args, self.kwargs), dict(zip(map(id, self.inputs), tensors, strict=True)))

    def put_masks(self, tensors):
        """Puts the masks on tensors in the order of the inputs, from which a layer may have taken them."""
        for place, mask in self.masks.items():
            tensors[place]._keras_mask = tensors[mask]


def look_inside(layer, signature, path, **mode):
    """Returns a functional model of what is inside a layer, for one way of calling it.

    Args:
        layer: Built layer of any class.
        signature: `Signature` of the call. The model's inputs are its inputs.
        path: Name of the layer in errors.
        **mode: Other arguments of the call, such as `training`.

    Raises:
        BridgeError: if the layer's call does what symbolic tensors cannot, or does more than compute its outputs.
    """
    kind = type(origin(layer))
    inputs, (args, kwargs) = signature.symbolic(BATCH)
    tracing = _Tracing(inputs[0])
    try:
        with traced_quietly():
            with keras.StatelessScope(collect_losses=True) as scope:
                # In no mode, a layer of preprocessing would set that of all layers behind it to training.
                outputs = tracing.run(layer, "", args, {**kwargs, "training": False, **mode})
            outputs = keras.tree.map_structure(tracing.constant, outputs)
            tracing.on = False
            if not all(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(outputs)):
                raise TypeError("an output is no tensor")
            if scope.losses:
                raise TypeError("it adds a loss with add_loss")
            if scope.state_mapping:
                raise TypeError("it assigns values to its weights, or draws random numbers of its own")
            view = functional_model(inputs, outputs, layer.name)
            if signature.free_batch:
                signature.put_masks(signature.inputs)
                view = with_free_batch(view, signature.inputs)
    except Exception as error:  # whatever the user's call raises
        raise BridgeError(
            f"The layer '{path}' ({kind.__name__}) cannot be opened: its call does not work on symbolic tensors.{line_of(kind.call, error)}\n"
            f"{reason_of(error)}",
            "a call made of layers and keras.ops",
        ) from error
    name_operations(view, tracing.made.values())
    return view


@contextlib.contextmanager
def traced_quietly():
    """The scope of a symbolic run of a layer of the user's: without warnings, and with tracebacks as they are."""
    # The layer warned of its masks when the model was built. The user's line is in a traceback that Keras has not filtered.
    filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if filtering:
            keras.config.enable_traceback_filtering()


def _subclass(kind, **methods):
    """Returns a subclass with other methods that Keras takes for the class itself."""
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


class _Tracing:
    """One run of a layer's call on symbolic tensors, with tensors in place of its weights, and layers that are watched in place of those inside it.

    Args:
        anchor: A symbolic input, from which what depends on no input gets its place in the graph.
    """

    def __init__(self, anchor):
        self.anchor = anchor
        self.on = True
        self.made = {}  # id of a variable or layer -> what takes its place

    def run(self, layer, prefix, args, kwargs):
        """Returns the outputs of a layer's own call, so that the graph is of what is inside.

        Args:
            layer: The layer.
            prefix: What the names of the layers inside begin with.
            args: Arguments, with symbolic tensors.
            kwargs: Keyword arguments.
        """
        if layer.activity_regularizer is not None:
            raise TypeError("it has a penalty on its outputs, which is no part of a graph")
        noted = {}

        def call_and_note(called, *args, **kwargs):
            # The call around this one may change whence the outputs came, and their masks; it takes nothing but tensors.
            outputs = noted["outputs"] = called.call(*args, **kwargs)
            tensors = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor)]
            noted.update({id(x): (x, x._keras_history, mask_of(x)) for x in tensors})
            return outputs if len(tensors) == len(keras.tree.flatten(outputs)) else tensors

        opened = stand_in(layer, layer.name, _subclass(type(origin(layer)), symbolic_call=call_and_note))
        found = {name: self._replaced(value, layer, prefix) for name, value in vars(layer).items() if name not in COLLECTIONS}
        vars(opened).update(found)
        opened(*args, **kwargs)
        return keras.tree.map_structure(lambda x: _restored(x, noted) if isinstance(x, keras.KerasTensor) else x, noted["outputs"])

    def _replaced(self, value, layer, prefix):
        def inner(item):
            return self._replaced(item, layer, prefix)

        if isinstance(value, (keras.Variable, keras.layers.Layer)):
            if id(value) not in self.made:
                weight = isinstance(value, keras.Variable)
                self.made[id(value)] = HeldWeight.of(value, layer)(self.anchor) if weight else self._watched(value, prefix + value.name)
            return self.made[id(value)]
        if isinstance(value, dict):
            items = {key: inner(item) for key, item in value.items()}
            return items if any(items[key] is not item for key, item in value.items()) else value
        if type(value) is tuple or isinstance(value, list):
            items = list(map(inner, value))
            return type(value)(items) if any(new is not item for new, item in zip(items, value, strict=True)) else value
        return value

    def _watched(self, layer, name):
        """Returns a stand-in for an inner layer. Arrays that it is called on become symbolic, or without any other tensor its weights would count as values."""

        def call(called, *args, **kwargs):
            if not self.on:
                return super(kind, called).__call__(*args, **kwargs)
            args, kwargs = keras.tree.map_structure(self.constant, (args, kwargs))
            try:
                outputs = super(kind, called).__call__(*args, **kwargs)
                # What is built by this call is the layer itself, whose `build` the two share.
                vars(called).update({key: value for key, value in vars(layer).items() if key not in vars(called)})
                ids = masked_ids(called, args, kwargs, outputs)
                return outputs if ids is None else WithMask()([outputs, keras.ops.not_equal(ids, 0)])
            except Exception:
                if not (is_foreign(layer) or is_sequential(layer)):
                    raise
            # It is no part of a graph as a whole: it takes or returns what is no tensor, or was built for another shape.
            return (self._run_in_turn if is_sequential(layer) else self.run)(layer, f"{name}/", args, kwargs)

        kind = _subclass(type(origin(layer)), __call__=call)
        return stand_in(layer, name, kind)

    def _run_in_turn(self, model, prefix, args, kwargs):
        """Returns the outputs of the layers of a Sequential model, called one after the other, whatever it was built for: Keras itself runs it on any tensor."""
        (x,) = args
        for layer in model.layers:
            taken = {key: value for key, value in kwargs.items() if key in inspect.signature(layer.call).parameters}
            x = self._replaced(layer, model, prefix)(x, **taken)
        return x

    def constant(self, value):
        """Returns a symbolic tensor for an array; anything else as it is."""
        if not hasattr(value, "__array__") or isinstance(value, (keras.KerasTensor, keras.Variable, np.generic)):
            return value
        array = keras.ops.convert_to_numpy(value)
        return HeldConstant(array, keras.backend.standardize_dtype(array.dtype))(self.anchor)


def _restored(x, noted):
    """Gives an output back the place in the graph that it came from, and puts a `WithMask` behind it if its mask comes from no layer inside."""
    _, history, before = noted[id(x)]
    vars(x)["_keras_history"] = history
    travels = before is not None and isinstance(history.operation, keras.layers.Layer)
    if mask_of(x) is None or travels:
        return x
    mask, x._keras_mask = mask_of(x), None
    return WithMask()([x, mask])
