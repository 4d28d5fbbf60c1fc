"""Builds a native Keras 3 model anew from its graph, with other layers in place of some of its own."""

import copy

import keras

from tfdistill.errors import ModelError
from tfdistill.graph.functional import calls, filled, input_operation, is_sequential, own_arguments
from tfdistill.graph.layers import lambda_arguments
from tfdistill.graph.names import unique_name


class Remade:
    """A model and its layers made anew. Nested models stay nested, shared layers shared, and Sequential models Sequential.

    Subclasses say what is different in the new model: here, nothing is.

    Args:
        model: The original, which is not changed.
        graph: Its `FlatGraph`.

    Attributes:
        model: The new model.
        made: Dict of id of each layer and operation of the original to the new one.
    """

    def __init__(self, model, graph):
        self._graph = graph
        self._kept = []  # pairs of a layer and the new one
        self.made = {}
        self.model = self._model(model, None)
        for old, new in self._kept:
            self._copy_weights(old, new)

    def _sizes(self, view, values):
        """Returns the shapes of a model's inputs. `values` are what a nested one is called on, None for the outermost."""
        return [tuple(x.shape) for x in view.inputs]

    def _settings(self, operation):
        """Returns a dict of path in the config of an operation to a function of the old value that returns the new one."""
        return {}

    def _value(self, variable):
        """Returns what the new weight gets in place of a weight of the original."""
        return keras.ops.convert_to_numpy(variable)

    def _left_out(self, view):
        """Returns a dict of id of the first output of each call of a view that is left out to the tensor that takes its place, or None where nothing reads it."""
        return {}

    def _parts(self, operation, name, taken):
        """Returns the layers that take the place of one, the first of which gets its arguments, and each other one what the one before it returns.

        Args:
            operation: Layer, operation or nested model.
            name: Name for what takes its place; None for its own.
            taken: Names that other layers around it have.
        """
        key = id(self._itself(operation))
        if key in self._graph.views:
            return [self._model(self._itself(operation), self._graph.entries[key][0])]
        if key not in self.made:
            self.made[key] = made_again(operation, self._settings(operation), name)
            self._kept.append((operation, self.made[key]))
        return [self.made[key]]

    def _itself(self, operation):
        """Returns what is made again once for all operations of the graph that stand for it."""
        return operation

    def _stays_sequential(self, model, view):
        """Whether the new model is a Sequential one."""
        return is_sequential(model)

    def _name(self, operation, used):
        """Returns the name of what takes the place of an operation in a functional model, in which others have the names `used`."""
        return unique_name(operation.name, used)

    def _training(self, call):
        """Returns the mode that a call is made in, whatever that of the model is; None for that of the model."""
        return call.kwargs.get("training")

    def _model(self, model, values):
        """Returns the new model. `values` are what a nested one is called on."""
        if id(model) in self.made:
            return self.made[id(model)]
        view = self._graph.views[id(model)]
        inputs = [self._input(x, shape) for x, shape in zip(view.inputs, self._sizes(view, values), strict=True)]
        if self._stays_sequential(model, view):
            left_out = self._left_out(view)
            gone = {id(call.operation) for call in calls(view) if id(call.outputs[0]) in left_out}
            kept = [layer for layer in model.layers if id(layer) not in gone]
            taken = {layer.name for layer in kept}
            layers = [part for layer in kept for part in self._parts(layer, None, taken)]
            new = keras.Sequential([*inputs, *layers], name=model.name)
        else:
            new = self._functional(model, view, inputs)
        if not model.trainable:
            new.trainable = False
        self.made[id(model)] = new
        return new

    def _functional(self, model, view, inputs):
        tensors = dict(zip(map(id, view.inputs), inputs, strict=True))
        names: dict[int, str] = {}
        taken, left_out = {call.operation.name for call in calls(view)}, self._left_out(view)
        for call in calls(view):
            if id(call.outputs[0]) in left_out:
                source = left_out[id(call.outputs[0])]
                if source is not None:
                    tensors[id(call.outputs[0])] = tensors[id(source)]
                continue
            # Keras's own record of the mode of a call is kept as it is; masks travel with the new tensors.
            mode = self._training(call)
            kwargs = {**own_arguments(call), **({} if mode is None else {"training": mode})}
            args, kwargs = filled((call.args, kwargs), tensors)
            if id(call.operation) not in names:
                names[id(call.operation)] = self._name(call.operation, set(names.values()))
            first, *rest = self._parts(call.operation, names[id(call.operation)], taken)
            found = first(*args, **kwargs)
            for part in rest:
                found = part(found)
            tensors.update(zip(map(id, call.outputs), keras.tree.flatten(found), strict=True))
        structure = view.input if not isinstance(view.input, keras.KerasTensor) else view.inputs[0]
        return keras.Model(filled(structure, tensors), filled(view.output, tensors), name=model.name)

    def _input(self, tensor, shape):
        layer = input_operation(tensor)
        config = {**layer.get_config(), "batch_shape": shape, "dtype": tensor.dtype}
        return type(layer).from_config(config).output

    def _copy_weights(self, old, new):
        before, after = getattr(old, "weights", []), getattr(new, "weights", [])
        if len(before) != len(after):
            raise ModelError(
                f"'{old.name}' ({type(old).__name__}) made again has {len(after)} weights.", f"{len(before)}, as it has in the model"
            )
        for source, target in zip(before, after, strict=True):
            value = self._value(source)
            if tuple(value.shape) != tuple(target.shape):
                raise ModelError(
                    f"'{old.name}' ({type(old).__name__}) made again has a weight of the shape {tuple(target.shape)}.",
                    f"{value.shape}, which is left of its weight of the shape {tuple(source.shape)}",
                    f"exclude it: exclude='{old.name}'",
                )
            target.assign(value)
        if hasattr(new, "finalize_state"):  # preprocessing layers compute what they call with from their weights
            new.finalize_state()


def made_again(operation, settings, name=None):
    """Returns a new layer or operation like one, with other arguments of its constructor.

    Args:
        operation: The original.
        settings: Dict of the path of an argument in its config to a function of the old value that returns the new one.
        name: Name of the new one; None for that of the original.

    Raises:
        ModelError: if it cannot be made from its config.
    """
    try:
        if type(operation) is keras.layers.Lambda:
            return keras.layers.Lambda(**{**lambda_arguments(operation), "name": name or operation.name})
        if type(operation) is keras.layers.Identity:  # it takes any argument, and does nothing with it, but saves it
            return keras.layers.Identity(name=name or operation.name)
        config = _without_shapes(copy.deepcopy(operation.get_config()))
        for path, function in settings.items():
            inner = config
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = function(inner.get(path[-1]))
        if name is not None:
            config["name"] = name
        with keras.saving.custom_object_scope(_own_functions(operation)):
            return type(operation).from_config(config)
    except Exception as error:  # whatever a user's class raises
        raise ModelError(
            f"'{operation.name}' ({type(operation).__name__}) cannot be made again from its config: {type(error).__name__}: {error}",
            "a class whose get_config() returns the arguments of its constructor",
        ) from error


def _without_shapes(config):
    """Returns a config without the shapes that the layers inside it were built with."""
    if isinstance(config, dict):
        return {key: _without_shapes(value) for key, value in config.items() if key != "build_config"}
    return [_without_shapes(value) for value in config] if isinstance(config, list) else config


def _own_functions(operation):
    """Returns the user's functions and objects that a layer was made with, by the names under which its config has them."""
    found = {}
    for value in vars(operation).values():
        if callable(value) and not isinstance(value, keras.layers.Layer):
            found[getattr(value, "__name__", type(value).__name__)] = value if hasattr(value, "__name__") else type(value)
    return {name: value for name, value in found.items() if not str(getattr(value, "__module__", "")).startswith("keras.")}
