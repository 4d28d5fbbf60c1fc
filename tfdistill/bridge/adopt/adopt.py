"""Adopts a tf_keras model as a Keras 3 model, so that Keras 3 trains it: its optimizers, callbacks, checkpoints, and a Distiller.

Every `tf.Variable` of the tf_keras model is wrapped, not copied, as a `keras.Variable`: the two share their memory.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, MutableMapping

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection, loading, serialization
from tfdistill.bridge.adopt.layers import named_layers, walk
from tfdistill.bridge.adopt.summary import own_layers, summary_lines
from tfdistill.bridge.adopt.variables import adopted_variables, matched
from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.graph.layers import all_layers
from tfdistill.utils.types import Config, Tensors

if typing.TYPE_CHECKING:
    import tf_keras


def adopt(tf_keras_model: tf_keras.Model, original: keras.Model | None = None, name: str | None = None) -> AdoptedModel:
    """Adopts a tf_keras model as a `keras.Model`. Both share their weights: training one trains the other.

    Args:
        tf_keras_model: A built `tf_keras.Model`, plain or wrapped by TFMOT (pruning, clustering, quantization-aware).
        original: The Keras 3 model that it was made from. The `strip` of a compression step needs it to return a Keras 3 model.
        name: Name of the adopted model. Defaults to the tf_keras model's.

    Returns:
        An `AdoptedModel`.

    Raises:
        ModelError: if `tf_keras_model` is no tf_keras model, or is not built.
        ConfigurationError: if `original` is no Keras 3 model.

    Example:
        >>> adopted = tfdistill.adopt(tfdistill.to_tf_keras(student), original=student)
        >>> adopted.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = adopted.fit(x, y, verbose=0)
        >>> sorted(history.history)
        ['loss']
    """
    return AdoptedModel(tf_keras_model, original=original, name=name)


@keras.saving.register_keras_serializable(package="tfdistill")
class AdoptedModel(keras.Model):
    """A tf_keras model that trains, saves and loads as a Keras 3 model. Made by `adopt`.

    Calling it runs the tf_keras model. Each layer's `call` runs whenever a function is traced. Frozen layers of the tf_keras model stay frozen.
    XLA is off, as TFMOT's wrappers do not compile with it.

    Random layers (dropout) keep their random state in a variable, which every checkpoint holds: a training that is interrupted and continued gives
    the same weights as one that is not.

    Args:
        legacy: A built `tf_keras.Model`.
        original: The Keras 3 model that it was made from, or None.
        name: Name of the adopted model. Defaults to the tf_keras model's.

    Attributes:
        legacy: The live tf_keras model.
        original: The Keras 3 model that it was made from, or None.

    Example:
        >>> adopted = tfdistill.adopt(tfdistill.to_tf_keras(student))
        >>> list(adopted.named_layers())
        ['image', 'conv', 'norm', 'relu', 'pool', 'logits']
        >>> adopted.predict(x, verbose=0).shape
        (64, 10)
    """

    def __init__(self, legacy: tf_keras.Model, original: keras.Model | None = None, name: str | None = None):
        if not isinstance(legacy, imports.tf_keras().Model):
            raise ModelError(
                f"A {type(legacy).__name__} cannot be adopted.", "a tf_keras.Model", "convert a Keras 3 model with to_tf_keras first"
            )
        if not legacy.built:
            raise ModelError(
                f"The tf_keras model '{legacy.name}' is not built.", "a model with weights", "call it once, or give it an Input"
            )
        if original is not None and not isinstance(original, keras.Model):
            raise ConfigurationError(f"original is a {type(original).__name__}.", "the Keras 3 model that the tf_keras model was made from")
        # The inputs are not cast: the tf_keras model casts by its own policy.
        super().__init__(name=name or legacy.name, dtype="float32", autocast=False)
        self.supports_jit = False
        self.legacy = legacy
        # Not an attribute that Keras sees: the original's weights are no part of this model, nor of its checkpoints.
        object.__setattr__(self, "_original", original)
        with keras.name_scope(self.name):
            for variable in adopted_variables(legacy):
                self._track_variable(variable)
        self._copy_trainable_flags()
        self.built = True

    @property
    def original(self) -> keras.Model | None:
        """The Keras 3 model that it was made from, or None."""
        return self._original

    def __dir__(self):
        # Keras finds what to save by dir(); see __init__.
        return [name for name in super().__dir__() if name not in ("original", "_original")]

    def call(self, inputs: Tensors, training: bool | None = None) -> Tensors:
        return self.legacy(self._as_taken(inputs), training=bool(training))

    def _as_taken(self, inputs):
        import tensorflow as tf

        # What is trained quantized is dense, like its file.
        sparse = any(isinstance(tensor.type_spec, tf.SparseTensorSpec) for tensor in self.legacy.inputs)
        return inputs if sparse else tf.nest.map_structure(lambda x: tf.sparse.to_dense(x) if isinstance(x, tf.SparseTensor) else x, inputs)

    def build(self, input_shape: typing.Any = None) -> None:
        self.built = True

    def make_train_function(self, force: bool = False) -> typing.Any:
        """Makes the function of a training step, as in Keras; the optimizer's variables are made first, as TensorFlow traces a step that makes any twice."""
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_weights)
        return super().make_train_function(force)

    def _get_own_losses(self):
        return super()._get_own_losses() + [loss for loss in self.legacy.losses if not _is_stale(loss)]

    def _copy_trainable_flags(self):
        frozen = set()
        for layer in all_layers(self.legacy):
            # TFMOT's quantization wrapper lists the kernel as trainable even when its layer is frozen.
            if not layer.trainable:
                frozen.update(id(weight) for weight in layer.weights)
        trainable = {id(weight) for weight in self.legacy.trainable_weights} - frozen
        for variable in self._trainable_variables + self._non_trainable_variables:
            variable.trainable = id(variable.value) in trainable

    @property
    def trainable(self) -> bool:
        """Whether the model is trained. Setting it sets every layer, as for any Keras model."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        self.legacy.trainable = bool(value)
        self._copy_trainable_flags()

    def named_layers(self) -> dict[str, tf_keras.layers.Layer]:
        """Lists the live tf_keras layers under the names that the user gave them.

        Returns:
            Dict of path to layer: `"conv"`, or `"encoder/conv"` inside a nested model. Where TFMOT wrapped and renamed a layer (`quant_conv`), the
            user's name leads to the wrapper, whose output is what the following layer gets. Quantizers of the input are left out.
        """
        return named_layers(self.legacy)

    def get_layer(self, name: str | None = None, index: int | None = None) -> tf_keras.layers.Layer:
        """Finds a live tf_keras layer by the user's name or path, or by its index among the tf_keras model's layers.

        Raises:
            ConfigurationError: unless exactly one of `name` and `index` is given.
            ModelError: if there is no such layer; the message holds the nearest names.
        """
        if (name is None) == (index is None):
            raise ConfigurationError(f"get_layer got name={name!r} and index={index!r}.", "exactly one of them")
        if index is not None:
            if not -len(self.legacy.layers) <= index < len(self.legacy.layers):
                raise ModelError(f"The model '{self.name}' has {len(self.legacy.layers)} layers; there is none at index {index}.")
            return self.legacy.layers[index]
        layers = self.named_layers()
        if name not in layers:
            raise ModelError(f"The model '{self.name}' has no layer '{name}'.", fix=nearest(name, layers))
        return layers[name]

    @property
    def layers(self) -> list[tf_keras.layers.Layer]:
        """The live tf_keras layers, named as the user named them and taken out of their wrappers."""
        return own_layers(self.legacy)

    @property
    def input_shape(self) -> typing.Any:
        """Shape of the input, or structure of shapes; None for an unknown size."""
        return self.legacy.input_shape

    @property
    def output_shape(self) -> typing.Any:
        """Shape of the output, or structure of shapes; None for an unknown size."""
        return self.legacy.output_shape

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order, as the tf_keras model gives them."""
        paths = {layer.name: path for path, layer in walk(self.legacy)}
        return [paths.get(name, name) for name in self.legacy.output_names]

    def input_spec_structure(self) -> typing.Any:
        """Returns the structure of the inputs (one, list or dict) with a `keras.KerasTensor` of shape and dtype for each."""
        return _specs(self.legacy.input)

    def output_spec_structure(self) -> typing.Any:
        """Returns the structure of the outputs with a `keras.KerasTensor` of shape and dtype for each."""
        return _specs(self.legacy.output)

    def count_params(self) -> int:
        """Counts the user's parameters: all weights but the masks, steps and ranges that TFMOT added."""
        own = {id(v) for layer in all_layers(self.legacy) for v in introspection.own_variables(layer)}
        return sum(_size(weight) for weight in self.legacy.weights if id(weight) not in own)

    def summary(
        self,
        line_length: int | None = None,
        positions: list[float] | None = None,
        print_fn: Callable[[str], typing.Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: tuple[str, str] | list[str] | None = None,
    ) -> None:
        """Prints the layers as the user named them: class, compression step, output shape and the user's parameters.

        Args:
            line_length: Not used, like `positions`; they are there because Keras passes them.
            positions: Not used.
            print_fn: Function that is called with each line; None prints it.
            expand_nested: Whether the layers of nested models are listed.
            show_trainable: Whether it is said which layers are trained.
            layer_range: Names of the first and last layer to list.
        """
        lines = summary_lines(self.legacy, self.name, expand_nested, show_trainable, layer_range)
        for line in [*lines, f"Parameters: {self.count_params():,}"]:
            (print_fn or print)(line)

    def save_own_variables(self, store: MutableMapping[str, typing.Any]) -> None:
        for variable in self._trainable_variables + self._non_trainable_variables:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store: Mapping[str, typing.Any]) -> None:
        variables = {v.name: v for v in self._trainable_variables + self._non_trainable_variables}
        values = matched(self.legacy, self.name, variables, store)
        for name, variable in variables.items():
            variable.assign(values[name])

    def get_config(self) -> Config:
        original = None if self._original is None else keras.saving.serialize_keras_object(self._original)
        return {"name": self.name, "legacy": serialization.config_of(self.legacy), "original": original, "trainable": self.trainable}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, typing.Any] | None = None, safe_mode: bool | None = None
    ) -> AdoptedModel:
        """Makes the model from what `get_config` returned. Every name in the config is checked before anything is made or imported.

        Args:
            config: Dict.
            custom_objects: Dict of name to class or function that the config names and that is not registered with Keras or tf_keras.
            safe_mode: False allows Lambda layers with Python code, and other layers that could run any program. None leaves it to Keras: what
                `keras.saving.load_model` was given, and `keras.config.enable_unsafe_deserialization()`.

        Raises:
            ModelError: if the config names what may not be loaded, or is damaged.
        """
        legacy, original = loading.parts(config, custom_objects, safe_mode)
        model = cls(legacy, original=original, name=config["name"])
        if not config["trainable"]:
            model.trainable = False
        return model

    def get_build_config(self) -> None:
        return None

    def build_from_config(self, config: typing.Any) -> None:
        self.built = True


def _is_stale(loss):
    import tensorflow as tf

    # Losses of an activity are tensors of the graph in which the layer was last called.
    return tf.is_symbolic_tensor(loss) and loss.graph is not tf.compat.v1.get_default_graph()


def _specs(structure):
    import tensorflow as tf

    return tf.nest.map_structure(
        lambda t: keras.KerasTensor(tuple(t.shape), dtype=keras.backend.standardize_dtype(t.dtype), name=t.name), structure
    )


def _size(variable):
    return int(variable.shape.num_elements())
