"""Adopts a tf_keras model as a Keras 3 model, so that Keras 3 trains it: its optimizers, callbacks, checkpoints, and a Distiller.

Every `tf.Variable` of the tf_keras model is wrapped, not copied, as a `keras.Variable`: both sides see the same memory.
"""

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection, loading, serialization
from tfdistill.errors import ConfigurationError, ModelError, nearest


def adopt(tf_keras_model, original=None, name=None):
    """Adopts a tf_keras model as a `keras.Model`.

    Args:
        tf_keras_model: A built `tf_keras.Model`, plain or wrapped by TFMOT (pruning, clustering, quantization-aware).
        original: The Keras 3 model that it was made from. Optional; what gives a Keras 3 model back after compression needs it.
        name: Name of the adopted model. Defaults to the tf_keras model's.

    Returns:
        An `AdoptedModel`.

    Raises:
        ModelError: if `tf_keras_model` is no tf_keras model, or is not built.
        ConfigurationError: if `original` is no Keras 3 model.
    """
    return AdoptedModel(tf_keras_model, original=original, name=name)


@keras.saving.register_keras_serializable(package="tfdistill")
class AdoptedModel(keras.Model):
    """A tf_keras model that trains, saves and loads as a Keras 3 model. Made by `adopt`.

    Calling it runs the tf_keras model. Each layer's `call` is really called whenever a function is traced. Frozen layers of the tf_keras model stay
    frozen. XLA is left off, as TFMOT's wrappers do not compile with it.

    Random layers (dropout) are given their random state in a variable: it is in every checkpoint, so an interrupted training goes on as if it had
    never been interrupted.

    Attributes:
        legacy: The live tf_keras model.
        original: The Keras 3 model that it was made from, or None.
    """

    def __init__(self, legacy, original=None, name=None):
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
        # No casting on the way in: the tf_keras model casts by its own policy.
        super().__init__(name=name or legacy.name, dtype="float32", autocast=False)
        self.supports_jit = False
        self.legacy = legacy
        # Not an attribute that Keras sees: the original's weights are no part of this model, nor of its checkpoints.
        object.__setattr__(self, "_original", original)
        names = _variable_names(legacy)
        with keras.name_scope(self.name):
            taken = set()
            for variable in [*legacy.weights, *_random_states(legacy)]:
                self._track_variable(_wrapped(variable, names.get(id(variable), "random_state"), taken))
        self._copy_trainable_flags()
        self.built = True

    @property
    def original(self):
        return self._original

    def __dir__(self):
        # Keras finds what to save by dir(); see __init__.
        return [name for name in super().__dir__() if name not in ("original", "_original")]

    def call(self, inputs, training=None):
        return self.legacy(inputs, training=bool(training))

    def build(self, input_shape=None):
        self.built = True

    def _get_own_losses(self):
        return super()._get_own_losses() + [loss for loss in self.legacy.losses if not _is_stale(loss)]

    def _copy_trainable_flags(self):
        frozen = set()
        for layer in self.legacy._flatten_layers():
            # TFMOT's quantization wrapper lists the kernel as trainable even when its layer is frozen.
            if not layer.trainable:
                frozen.update(id(weight) for weight in layer.weights)
        trainable = {id(weight) for weight in self.legacy.trainable_weights} - frozen
        for variable in self._trainable_variables + self._non_trainable_variables:
            variable.trainable = id(variable.value) in trainable

    @property
    def trainable(self):
        """Whether the model is trained. Setting it sets every layer, as for any Keras model."""
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)
        self.legacy.trainable = bool(value)
        self._copy_trainable_flags()

    def named_layers(self):
        """Lists the live tf_keras layers under the names that the user gave them.

        Returns:
            Dict of path to layer: `"conv"`, or `"encoder/conv"` inside a nested model. Where TFMOT wrapped and renamed a layer (`quant_conv`), the
            user's name leads to the wrapper, whose output is what the following layer gets. Quantizers of the input are left out.
        """
        return named_layers(self.legacy)

    def get_layer(self, name=None, index=None):
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
    def input_shape(self):
        """Shape of the input, or structure of shapes; None for an unknown size."""
        return self.legacy.input_shape

    @property
    def output_shape(self):
        """Shape of the output, or structure of shapes; None for an unknown size."""
        return self.legacy.output_shape

    @property
    def output_names(self):
        """Names of the outputs, in order, as the tf_keras model gives them."""
        paths = {layer.name: path for path, layer in _walk(self.legacy)}
        return [paths.get(name, name) for name in self.legacy.output_names]

    def input_spec_structure(self):
        """Returns the structure of the inputs (one, list or dict) with a `keras.KerasTensor` of shape and dtype for each."""
        return _specs(self.legacy.input)

    def output_spec_structure(self):
        """Returns the structure of the outputs with a `keras.KerasTensor` of shape and dtype for each."""
        return _specs(self.legacy.output)

    def count_params(self):
        """Counts the user's parameters: all weights but the masks, steps and ranges that TFMOT added."""
        own = {id(v) for layer in self.legacy._flatten_layers() for v in introspection.own_variables(layer)}
        return sum(_size(weight) for weight in self.legacy.weights if id(weight) not in own)

    def summary(self, line_length=None, positions=None, print_fn=None, expand_nested=False, show_trainable=False, layer_range=None):
        """Prints the tf_keras model's summary, wrappers and all."""
        self.legacy.summary(line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    def save_own_variables(self, store):
        for variable in self._trainable_variables + self._non_trainable_variables:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store):
        variables = {v.name: v for v in self._trainable_variables + self._non_trainable_variables}
        missing, unknown = sorted(set(variables) - set(store.keys())), sorted(set(store.keys()) - set(variables))
        wrong = [
            f"{n} {tuple(store[n].shape)}, not {tuple(v.shape)}" for n, v in variables.items() if n in store and store[n].shape != v.shape
        ]
        if missing or unknown or wrong:
            raise ModelError(
                f"The checkpoint does not fit the adopted model '{self.name}': missing {missing[:5]}, unknown {unknown[:5]}, of another shape {wrong[:5]}.",
                "a checkpoint of a model of this architecture after the same compression steps",
            )
        for name, variable in variables.items():
            variable.assign(store[name])

    def get_config(self):
        original = None if self._original is None else keras.saving.serialize_keras_object(self._original)
        return {"name": self.name, "legacy": serialization.config_of(self.legacy), "original": original, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config, custom_objects=None, safe_mode=None):
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

    def get_build_config(self):
        return None

    def build_from_config(self, config):
        self.built = True


def named_layers(legacy, inputs=False):
    """Lists the layers of a live tf_keras model, wrapped or not, as `AdoptedModel.named_layers` does; with `inputs=True` the quantizers of its input too."""
    quantizers = [layer for layer in legacy.layers if introspection.is_input_quantizer(layer)] if inputs else []
    return {**{layer.name: layer for layer in quantizers}, **dict(_walk(legacy))}


def _variable_names(legacy):
    # tf_keras names a variable by the way in which its layer was first built; a checkpoint needs names that a rebuilt twin has too.
    names = {}
    quantizers = [layer for layer in legacy.layers if introspection.is_input_quantizer(layer)]
    for i, layer in enumerate(quantizers):
        # TFMOT numbers them through the process.
        names.update({id(weight): f"input_quantizer_{i}/{_last(weight).removeprefix(layer.name + '_')}" for weight in layer.weights})
    for path, layer in _walk(legacy):
        names.update({id(weight): f"{path}/{_last(weight)}" for weight in layer.weights})
    return names


def _last(variable):
    return variable.name.partition(":")[0].rpartition("/")[2]


def _wrapped(variable, name, taken):
    name = unique = name.replace("/", "_")  # Keras allows no slash
    count = 1
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    taken.add(unique)
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return keras.Variable(variable, dtype=dtype, trainable=variable.trainable, autocast=False, name=unique)


def _random_states(legacy):
    states = []
    for layer in legacy._flatten_layers():
        generator = getattr(layer, "_random_generator", None)
        if generator is None or generator._rng_type == generator.RNG_STATELESS:
            continue
        if generator._rng_type == generator.RNG_LEGACY_STATEFUL:
            # The default keeps its state inside the graph's kernels, where no checkpoint can see it.
            generator._rng_type, generator._built = generator.RNG_STATEFUL, False
        generator._maybe_init()
        states.append(generator._generator._state_var)
    return states


def _is_stale(loss):
    import tensorflow as tf

    # Losses of an activity are tensors of the graph in which the layer was last called.
    return tf.is_symbolic_tensor(loss) and loss.graph is not tf.compat.v1.get_default_graph()


def _walk(model, prefix=""):
    for layer in model.layers:
        if introspection.is_input_quantizer(layer):
            continue
        inner = introspection.unwrap(layer)
        yield prefix + inner.name, layer
        if isinstance(inner, imports.tf_keras().Model):
            yield from _walk(inner, f"{prefix}{inner.name}/")


def _specs(structure):
    import tensorflow as tf

    return tf.nest.map_structure(
        lambda t: keras.KerasTensor(tuple(t.shape), dtype=keras.backend.standardize_dtype(t.dtype), name=t.name), structure
    )


def _size(variable):
    return int(variable.shape.num_elements())
