"""TFMOT's own wrapper classes, each with a view that has the methods of this library's wrappers."""

import contextlib
import functools

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.base import WrapperState


class TfmotWrapper(WrapperState):
    """View of a wrapper of TFMOT's.

    Args:
        wrapper: The live wrapper.
    """

    def __init__(self, wrapper):
        self.wrapper = wrapper

    def own_variables(self):
        return list(self.wrapper._non_trainable_weights)


class TfmotPruning(TfmotWrapper):
    """View of a `PruneLowMagnitude`."""

    step = "pruning"

    def masked_weights(self):
        return [(weight, mask) for weight, mask, _ in self.wrapper.pruning_vars]


class TfmotClustering(TfmotWrapper):
    """View of a `ClusterWeights`, whose layer has the clustered weights as its own."""

    step = "clustering"


class TfmotQuantization(TfmotWrapper):
    """View of a `QuantizeWrapper`, which replaces the layer's weights and activations by quantized ones of its last trace."""

    step = "quantization"

    def held_weights(self):
        return [(self.wrapper._weight_name(weight.name), weight) for weight, _, _ in self.wrapper._weight_vars]

    def activation_ranges(self):
        wrapper = self.wrapper
        found = [(wrapper._weight_name(weight.name), variables) for weight, _, variables in wrapper._weight_vars]
        for activation in wrapper._quantize_activations:
            for kind in ("pre_activation", "post_activation"):
                variables = getattr(activation, f"_{kind}_vars", None)
                if variables is not None:
                    found.append((kind.replace("_", " "), variables))
        if wrapper._output_quantizers:
            found.append(("output", wrapper._output_quantizer_vars))
        return [(what, variables["min_var"], variables["max_var"]) for what, variables in found]

    @contextlib.contextmanager
    def original_activations(self):
        wrapper = self.wrapper
        traced = wrapper._quantize_activations if wrapper.built else []
        if traced:
            wrapper.quantize_config.set_quantize_activations(wrapper.layer, [activation.activation for activation in traced])
        try:
            yield
        finally:
            if traced:
                wrapper.quantize_config.set_quantize_activations(wrapper.layer, traced)


@functools.cache
def _views():
    """Returns the table of TFMOT's wrapper classes: class -> view of it."""
    imports.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapper
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return {PruneLowMagnitude: TfmotPruning, ClusterWeights: TfmotClustering, QuantizeWrapper: TfmotQuantization}


def is_from_tfmot(layer):
    """Whether the class of a layer is TFMOT's. Does not import TFMOT."""
    return type(layer).__module__.startswith("tensorflow_model_optimization.")


def view_of_tfmot(layer):
    """Returns the view of a wrapper of TFMOT's, None for any other layer. Does not import TFMOT when it was never used."""
    views = _views() if is_from_tfmot(layer) else {}
    return next((view(layer) for kind, view in views.items() if isinstance(layer, kind)), None)


@functools.cache
def quantize_layer_class():
    """Returns TFMOT's `QuantizeLayer`, which it puts behind every input."""
    imports.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

    return QuantizeLayer
