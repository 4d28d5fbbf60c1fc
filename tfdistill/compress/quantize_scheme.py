"""How each layer is quantized in training: TFMOT's 8-bit scheme, with what it lacks or gets wrong put right.

Beyond TFMOT: ranges of activations start from the first batch, not from -6 to 6; layers that it refuses get a quantizer on their output; weights that came in with zeros are quantized under a mask; separable
convolutions keep the user's name when they are split; and a convolution or dense layer before a ReLU layer is still weight-quantized (TFMOT's
own transform leaves such a layer without any quantizer).
"""

import typing

from tfdistill.legacy import adopt_quantizers

WEIGHTS, OUTPUT, PASSES = "weights and output trained quantized", "output trained quantized", "adds no range of its own"
FOLDED = "folded into the layer before it, which is trained quantized"

# Classes that a quantizer on the output serves, and that TFMOT refuses.
_OUTPUT_ONLY = ("BatchNormalization", "Rescaling", "Multiply", "Subtract", "Average", "Maximum", "Minimum", "ELU", "PReLU")
_KERNELS = {"Dense": "kernel", "Conv2D": "kernel", "Conv2DTranspose": "kernel", "DepthwiseConv2D": "depthwise_kernel"}
# Activation functions that TFMOT's activation quantizer takes inside a layer, and as an Activation layer.
_INSIDE = ("softmax", "sigmoid", "tanh", "linear", "relu", "swish", "silu", "gelu")
_AS_LAYER = ("relu", "relu6", "swish", "silu", "gelu", "linear", "softmax", "sigmoid", "tanh")


class Treatment(typing.NamedTuple):
    """How one layer is trained quantized.

    Attributes:
        done: Whether it is; otherwise the converter calibrates it.
        reason: What is done, or why it is not.
        config: A TFMOT `QuantizeConfig`, or None where TFMOT's own scheme decides.
    """

    done: bool
    reason: str
    config: typing.Any = None


def treatment(layer, chosen):
    """Decides how a tf_keras layer is trained quantized.

    Args:
        layer: A live tf_keras layer inside its model, without wrappers.
        chosen: Set of the names of all layers that are to be trained quantized.

    Returns:
        `Treatment`.
    """
    kind = type(layer).__name__
    registry = adopt_quantizers.quantize_parts().registry.Default8BitQuantizeRegistry()
    if len(layer.inbound_nodes) != 1 and layer.weights:
        return Treatment(False, "it is called several times, which TFMOT does not take")
    if kind == "BatchNormalization" and _foldable_before(layer, chosen):
        return Treatment(True, FOLDED)
    if kind in _OUTPUT_ONLY or (kind == "Activation" and _name(layer.activation) not in _AS_LAYER):
        return Treatment(True, OUTPUT, adopt_quantizers.output_only_config())
    if kind == "SeparableConv2D":
        return Treatment(True, WEIGHTS)
    if not registry.supports(layer):
        return Treatment(False, f"there is no quantizer for {kind}")
    if kind in _KERNELS:
        inside = _name(layer.activation) in _INSIDE
        return Treatment(True, WEIGHTS, None if inside else _weights_config(layer, quantize_output=True))
    return Treatment(True, OUTPUT if registry.get_quantize_config(layer).get_output_quantizers(layer) else PASSES)


def scheme(sparse):
    """Returns the TFMOT scheme for a model.

    Args:
        sparse: Set of layer names whose weights are quantized under a mask.
    """
    base_layout, registry_module, base_scheme, separable, transformer = adopt_quantizers.quantize_parts()

    def own(name, config):
        return adopt_quantizers.prompt_quantize_config(config, masked=name in sparse)

    class NamedSeparable(separable):
        """Splits a separable convolution into two layers that are named after it."""

        def replacement(self, match_layer):
            convolution = super().replacement(match_layer)
            if convolution is not match_layer:
                name = match_layer.layer["config"]["name"]
                for node, part in ((convolution, name), (convolution.input_layers[0], f"{name}_depthwise")):
                    node.layer["name"] = node.layer["config"]["name"] = part
            return convolution

    class Layout(base_layout):
        def apply(self, model, layer_quantize_map):
            named = layer_quantize_map
            if any(type(layer).__name__ == "SeparableConv2D" for layer in model.layers):
                model, named = transformer(model, [NamedSeparable()], set(named), named).transform()
            model, named = super().apply(model, named)
            for layer in model.layers:
                config = named.get(layer.name, {}).get("quantize_config")
                if type(config).__name__ == "NoOpQuantizeConfig" and type(layer).__name__ in _KERNELS and not _is_noop(layer.activation):
                    # The ReLU layer behind it quantizes the output; the weights are still this layer's to quantize.
                    config = _weights_config(layer, quantize_output=False)
                if config is not None:
                    named[layer.name]["quantize_config"] = own(layer.name, config)
            return model, named

    class Registry(registry_module.Default8BitQuantizeRegistry):
        def get_quantize_config(self, layer):
            return own(layer.name, super().get_quantize_config(layer))

    class Scheme(base_scheme):
        def get_layout_transformer(self):
            return Layout()

        def get_quantize_registry(self):
            return Registry()

    return Scheme()


def _weights_config(layer, quantize_output):
    registry = adopt_quantizers.quantize_parts().registry
    kind = type(layer).__name__
    classes = {"Dense": registry.Default8BitQuantizeConfig, "Conv2DTranspose": registry.Default8BitConvTransposeQuantizeConfig}
    return classes.get(kind, registry.Default8BitConvQuantizeConfig)([_KERNELS[kind]], [], quantize_output)


def _foldable_before(layer, chosen):
    before = layer.inbound_nodes[0].inbound_layers
    if isinstance(before, (list, tuple)):
        return False
    kind = type(before).__name__
    linear = kind in ("Conv2D", "DepthwiseConv2D", "Dense", "SeparableConv2D") and _name(before.activation) == "linear"
    linear = linear and before.name in chosen
    # Another reader of the convolution's output, or the model's own output, keeps it from being folded.
    return linear and len(before.inbound_nodes) == 1 and len(before.outbound_nodes) == 1


def _is_noop(activation):
    return type(activation).__name__ == "NoOpActivation"


def _name(activation):
    return getattr(activation, "__name__", type(activation).__name__)
