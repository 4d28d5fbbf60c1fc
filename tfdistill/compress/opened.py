"""Models with what is inside layers of classes that Keras does not have in the place of these layers."""

import functools
import inspect
import warnings

import keras

from tfdistill.bridge.convert.custom import Opener
from tfdistill.bridge.convert.layers import base_of
from tfdistill.bridge.parity.opened import check_opened, check_same
from tfdistill.compress import rebuild
from tfdistill.compress.remake import Remade
from tfdistill.compress.selection import Layers, Selection, select, selectors
from tfdistill.errors import BridgeError, ModelError
from tfdistill.graph.carriers import HeldWeight
from tfdistill.graph.flat import flat_graph
from tfdistill.graph.functional import as_functional, calls, is_functional, is_sequential
from tfdistill.graph.masks import mask_of
from tfdistill.graph.names import unique_name
from tfdistill.graph.opening import is_foreign, origin

_SHOWN = 5  # layers in a warning


def open_layers(model: keras.Model, layers: Selection = None, exclude: Selection = None) -> keras.Model:
    """Returns a model with what is inside layers of classes that Keras does not have in the place of these layers. `model` is not changed.

    `PruneChannels`, `LowRank` and `shrink_like` make new layers of other sizes. That of a class of yours, or of keras-hub's, can only be made with the sizes that its
    constructor takes, so they leave it whole. In the model that this function returns, a layer is replaced by the layers of Keras's and the operations of
    its `call`: `block/attention` becomes `block_attention`. So they shrink like any other layer, and the model is saved and loaded without the class.

    Each layer's `call` is run once on symbolic tensors. It must be made of layers and `keras.ops`, and be the same in training and at inference except for
    `training=training`. The new model is compared with `model` on random input. Weights that no call reads are left out.
    A function that only the class knew, such as an activation of its own, has to be registered with Keras for the new model to be loaded.

    Args:
        model: A built Keras 3 model.
        layers: Names, patterns (`"encoder/*"`) or a predicate of the layers to open; None for all layers of classes that Keras does not have. Those
            inside an opened layer are opened with it.
        exclude: Layers that stay, in the same forms.

    Returns:
        A Keras 3 model; `model` itself where it has no such layers.

    Raises:
        ModelError: if `model` is no built Keras 3 model; if a layer that was named cannot be opened, or a name matches none.
        ConfigurationError: if `layers` or `exclude` selects nothing.
        BridgeError: if the `call` of a subclassed model does not work on symbolic tensors, or the new model does not compute what `model` does.

    Warns:
        UserWarning: if a layer that was not named, or one inside another, cannot be opened and stays as it is, and why.

    Example:
        >>> @keras.saving.register_keras_serializable("docs")
        ... class Block(keras.layers.Layer):
        ...     def __init__(self, width, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.width, self.wide, self.back = width, keras.layers.Dense(4 * width, "relu"), keras.layers.Dense(width)
        ...
        ...     def call(self, x):
        ...         return x + self.back(self.wide(x))
        ...
        ...     def get_config(self):
        ...         return {**super().get_config(), "width": self.width}
        >>> model = keras.Sequential([keras.Input((8,)), Block(8, name="block"), keras.layers.Dense(2)])
        >>> opened = tfdistill.compress.open_layers(model)
        >>> tfdistill.compress.PruneChannels(keep_macs=0.5).apply(opened).get_layer("block_dense").units
        8
    """
    rebuild.require_native(model, "open_layers")
    found = Layers({call.path: call.operation for call in flat_graph(model).calls if is_foreign(call.operation)})
    if not found:
        return model
    chosen, named = select(found, selectors(layers, "layers"), selectors(exclude, "exclude"))
    opener = _Chosen({id(found[path]) for path in set(found) - chosen}, {id(found[path]) for path in named})
    graph = flat_graph(model, view_of=opener.view)
    _say_whole(model, opener.whole, {id(layer): path for path, layer in found.items()}, named)
    opened = _Opened(model, graph, opener.frozen).model
    check_same(model, as_functional(opened), model.name)
    return opened


def _say_whole(model, whole, paths, named):
    """Refuses a layer that cannot be opened although it was named, and warns of the others.

    Args:
        model: The model.
        whole: Dict of id of a layer that is not opened to the layer and the `BridgeError` that says why; None for one with a kernel of Keras's.
        paths: Dict of id of a layer to its path, without those inside other layers.
        named: Paths of the layers that the user named outright.
    """
    said = []
    for key, (layer, error) in whole.items():
        path, kind = paths.get(key, layer.name), type(layer).__name__
        if error is not None and path in named:
            raise ModelError(
                f"'{path}' cannot be opened. {error.happened}",
                "a layer whose call is made of layers and keras.ops",
                f"leave it as it is: exclude='{path}'",
            ) from error
        why = f"it has the kernel of a {base_of(type(layer)).__name__}" if error is None else error.happened.splitlines()[-1]
        said.append(f"'{path}' ({kind}): {why}")
    if said:
        more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        warnings.warn(
            f"open_layers leaves layers of '{model.name}' as they are. {'; '.join(said[:_SHOWN])}{more}.\n"
            "Fix: name one with a kernel in layers= to open it all the same; of others, tfdistill.compress.register_channels tells PruneChannels how channels pass "
            "through them",
            UserWarning,
            stacklevel=3,
        )


class _Chosen(Opener):
    """Opens all layers but some.

    Args:
        kept: Set of ids of layers that stay as they are.
        named: Set of ids of layers that are opened, whatever they compute.
    """

    def __init__(self, kept, named):
        super().__init__(set())
        self._stay, self._named = kept, named

    def view(self, model, opened, path, call):
        """Returns the view of a model with its layers opened, as `flat_graph` takes it."""
        if not is_functional(model) and not is_sequential(model):
            _refuse_mode(check_opened(model, opened, path), opened, f"'{path}' ({type(model).__name__})")
        modes = {id(call.outputs[0]): call.kwargs.get("training") for call in calls(opened)}
        self.frozen |= {key for key, mode in modes.items() if mode is False}
        made = self.open(opened, path, call)
        if made is not opened and True in modes.values():
            raise ModelError(
                f"A layer of '{path}' is always called with training=True, which is lost where layers beside it are opened.",
                "calls without a fixed training mode, or with training=False",
            )
        return made

    def runs_as_it_is(self, layer):
        return id(layer) not in self._named and super().runs_as_it_is(layer)

    def look(self, layer, signature, path):
        view, frozen = super().look(layer, signature, path)
        _refuse_mode(frozen, view, f"'{path}' ({type(origin(layer)).__name__})")
        return view, frozen

    def _inside(self, layer, signature, path):
        return None if id(origin(layer)) in self._stay else super()._inside(layer, signature, path)


def _refuse_mode(frozen, view, what):
    """Refuses a view in which calls stay in inference mode: a functional model of Keras's that is trained calls all its layers in training mode."""
    names = [call.operation.name for call in calls(view) if id(call.outputs[0]) in frozen]
    if names:
        raise BridgeError(
            f"{what} always calls '{names[0]}' in inference mode, which a functional model does not.", "layers in the mode of the model"
        )


class _Opened(Remade):
    """A model made anew, in which opened layers are what is inside them.

    Args:
        model: The original, which is not changed.
        graph: Its `FlatGraph`.
        frozen: Set of ids of the first output of each call that stays in inference mode.
    """

    def __init__(self, model, graph, frozen):
        self._frozen = frozen
        # Names of what is not inside an opened layer stay.
        self._own = {call.operation.name for view in graph.views.values() for call in calls(view) if "/" not in call.operation.name}
        super().__init__(model, graph)

    def _itself(self, operation):
        return operation.weight if isinstance(operation, HeldWeight) else origin(operation)

    def _parts(self, operation, name, taken):
        inside = "/" in operation.name and type(operation) is keras.layers.Activation
        if inside and not getattr(operation.activation, "__module__", "keras.").startswith("keras."):
            return [functools.partial(_activated, operation, name)]
        return super()._parts(operation, name, taken)

    def _stays_sequential(self, model, view):
        return is_sequential(model) and not any("/" in call.operation.name for call in calls(view))

    def _name(self, operation, used):
        taken = used if "/" not in operation.name else used | self._own
        return unique_name(operation.name.replace("/", "_"), taken)

    def _training(self, call):
        frozen = id(call.outputs[0]) in self._frozen and "training" in inspect.signature(origin(call.operation).call).parameters
        return False if frozen else super()._training(call)


def _activated(layer, name, x):
    """Returns what the function of an Activation gives, as operations of the graph, which need no name for it to be saved; a mask needs the layer to pass it on."""
    if mask_of(x) is None:
        return layer.activation(x)
    return keras.layers.Activation(layer.activation, dtype=layer.dtype_policy, name=name)(x)
