"""Decides about layers of classes that Keras does not have: opened, or run as they are."""

import keras

from tfdistill.bridge.adopt.introspection import unwrap
from tfdistill.bridge.adopt.layers import walk
from tfdistill.bridge.convert.hosted import host, is_hosted, why_hosted
from tfdistill.bridge.convert.layers import base_of, is_plain, is_registered
from tfdistill.bridge.parity.opened import check_inside, check_same
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import as_functional
from tfdistill.graph.inlining import inlined, inputs_at, is_rewritten
from tfdistill.graph.layers import all_layers, child_layers
from tfdistill.graph.names import unique_name
from tfdistill.graph.opening import is_foreign, look_inside, origin


class _AnotherCall(Exception):
    """A layer that was opened for one of its calls cannot be for another one."""


class Opener:
    """Opens the layers of one model whose classes Keras does not have.

    Args:
        frozen: Set of ids: of the first output of each call that stays in inference mode. Those inside the opened layers are added.
    """

    def __init__(self, frozen):
        self.frozen = frozen
        self.opened = set()  # ids of layers
        self.whole = {}  # id of a layer that is not opened -> (it, the BridgeError that says why, or None)

    def open(self, model, path, call=None):
        """Returns a functional model with what is inside the layers in their place; `model` itself where nothing is opened.

        Args:
            model: Functional or Sequential Keras 3 model.
            path: Where it is.
            call: The only `graph.Call` of it where it is nested in another model, or None.

        Raises:
            BridgeError: if the result computes something else than the model.
        """
        if not any(map(is_rewritten, all_layers(model))):
            return model
        view = as_functional(model)
        inputs = inputs_at(view, call)
        while True:
            try:
                made = inlined(view, lambda layer, signature, where: self._inside(layer, signature, f"{path}/{where}"), self.frozen, inputs)
                break
            except _AnotherCall:
                continue
        if made is view:
            return model
        check_same(model, made, path)
        return made

    def why_whole(self, layer):
        """Returns the `BridgeError` that says why a layer is not opened, or None."""
        return self.whole.get(id(origin(layer)), (None, None))[1]

    def look(self, layer, signature, path):
        """Returns a functional model of what is inside a layer, and the ids of the first output of each call in it that stays in inference mode.

        Raises:
            BridgeError: if it is only a part of the layer.
        """
        view = look_inside(layer, signature, path)
        return view, check_inside(layer, signature, view, path)

    def runs_as_it_is(self, layer):
        """Whether a layer of the user's has a better counterpart in tf_keras than what is inside it."""
        return is_registered(type(layer)) or is_plain(type(layer)) or _is_kernel_of_keras(layer)

    def _inside(self, layer, signature, path):
        source = origin(layer)
        if id(source) in self.whole:
            return None
        reason = None
        if not self.runs_as_it_is(source):
            try:
                view, frozen = self.look(layer, signature, path)
                self.frozen |= frozen
                self.opened.add(id(source))
                return view
            except BridgeError as error:
                reason = error
        self.whole[id(source)] = (source, reason)
        if id(source) in self.opened:
            raise _AnotherCall
        return None


def described(model, tf_keras_model):
    """Returns a line for each layer of a Keras 3 model whose class Keras does not have: that it was opened, or that it runs as it is, and why.

    Args:
        model: Keras 3 model, or None.
        tf_keras_model: Its copy.
    """
    return () if model is None else tuple(_lines(model, {path: unwrap(layer) for path, layer in walk(tf_keras_model)}, ""))


def _lines(parent, copies, prefix):
    taken = set()
    for layer in parent.layers if isinstance(parent, keras.Model) else child_layers(parent):
        path = unique_name(prefix + layer.name, taken)
        taken.add(path)
        if is_foreign(layer):
            yield f"{path} ({type(layer).__name__}): {_how(copies.get(path))}"
        if isinstance(layer, keras.Model) or (is_foreign(layer) and path not in copies):
            yield from _lines(layer, copies, f"{path}/")


def _how(copy):
    if copy is None:
        return "opened"
    if not is_hosted(copy):
        return "built as a layer of tf_keras"
    why = why_hosted(copy)
    return f"runs as it is{f', as it cannot be opened: {why}' if why else ''}"


def _is_kernel_of_keras(layer):
    """Whether a layer derives from one of Keras's that has weights and no layers inside, and can be run as it is: its kernels are known by their names then."""
    if not layer.weights or child_layers(layer) or base_of(type(layer)) in (None, keras.layers.Layer):
        return False
    try:
        host(layer, {"name": layer.name})
    except BridgeError:
        return False
    return True
