"""What errors of the bridge to tf_keras say to do is done here, and works."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from keras.src.backend.common import global_state
from remedies_of_source import Row, check

import tfdistill
from tfdistill.bridge import check_parity, host, register_bridge, to_keras, to_tf_keras
from tfdistill.bridge.convert import layers as convert_layers
from tfdistill.bridge.imports import tf_keras
from tfdistill.compress import Prune

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def sequence(*parts, shape=(6,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts], name="model")


def called(model, *inputs):
    model(*(inputs or [X]))
    return model


def one(layer, shape=(6,)):
    """A tf_keras model of one layer."""
    inputs = tf_keras().Input(shape)
    return tf_keras().Model(inputs, layer(inputs))


def crosses(model, **arguments):
    """Rebuilds a model in tf_keras, which compares the two, and back."""
    return to_keras(to_tf_keras(model, **arguments), model)


class Opaque(layers.Layer):
    """Works on no symbolic tensors, and cannot be made again."""

    def call(self, inputs):
        return tf.math.square(inputs)

    def get_config(self):
        raise NotImplementedError


@keras.saving.register_keras_serializable("remedies")
class Square(layers.Layer):
    """The same as Keras can save it."""

    def call(self, inputs):
        return tf.math.square(inputs)


class Traced(layers.Layer):
    """The same in keras.ops."""

    def call(self, inputs):
        return ops.square(inputs)


def with_builder(kind, builder, layer):
    register_bridge(kind, builder)
    try:
        return to_tf_keras(sequence(layer))
    finally:
        convert_layers._REGISTERED.pop(kind)


class Tripled(layers.Dense):
    def call(self, inputs):
        return 3.0 * super().call(inputs)


class Pair(layers.Layer):
    """Takes two tensors by themselves."""

    def call(self, a, b):
        return a - b


def pair(builder):
    register_bridge(Pair, builder)
    try:
        a, b = keras.Input((6,)), keras.Input((6,))
        return to_tf_keras(keras.Model([a, b], Pair(name="pair")(a, b)))
    finally:
        convert_layers._REGISTERED.pop(Pair)


class OfTwo(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2, name="dense")

    def call(self, one, other):
        return self.dense(one + other)


def functional_of(model):
    one, other = keras.Input((6,)), keras.Input((6,))
    return keras.Model([one, other], model(one, other))


class OfOne(OfTwo):
    def call(self, one):
        return self.dense(one)


def built_by_itself():
    """As a user's own `build` may leave a model: with weights, and without shapes that Keras knows."""
    model = OfOne(name="one")
    model.dense.build((None, 6))
    model.built = True
    return model


class Own(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x)

    def get_config(self):
        return {}


def quantized(layer):
    layer.quantize("int8")
    return layer


def half(x):
    return x * 0.5


def third(x):
    return x / 3.0


keras.saving.register_keras_serializable("remedies")(third)


def optional_input(optional):
    inputs = keras.Input((6,), name="maybe", optional=optional)
    return keras.Model(inputs, layers.Dense(2)(inputs))


class Operation(keras.Operation):
    """An operation that takes what cannot be saved."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def with_operation(operation):
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(operation(inputs)))


class WithoutConfig(keras.Model):
    """Has as many layers as its constructor is told, and does not say how many."""

    def __init__(self, count=1, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(6, name=f"part_{i}") for i in range(count)]

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs

    def get_config(self):
        return {"name": self.name}


class WithConfig(WithoutConfig):
    def get_config(self):
        return {"name": self.name, "count": len(self.parts)}


def of_a_variable():
    inputs = keras.Input((6,))
    return keras.Model(inputs, ops.add(layers.Dense(6)(inputs), keras.Variable(np.ones(6, "float32"), name="offset")))


class Offset(layers.Layer):
    def build(self, input_shape):
        self.offset = self.add_weight(name="offset", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs + self.offset


class WithOffset(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(6, name="dense")
        self.offset = self.add_weight(name="offset", shape=(6,), initializer="ones")

    def call(self, inputs):
        return self.dense(inputs) + self.offset

    def get_config(self):
        return {"name": self.name}


class Ending(keras.Model):
    """Its last step is given, so that each row has one of its own."""

    def __init__(self, end, layer=None, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.drop = layers.Dense(6, name="dense"), layers.Dropout(0.5, name="drop")
        self.scale = self.add_weight(name="scale", shape=(6,), initializer="ones")
        self.end, self.layer, self.calls = end, layer, 0

    def call(self, inputs, training=None):
        return self.end(self, self.dense(inputs), training)


def ending(end, layer=None):
    return called(Ending(end, layer, name="ending"))


class ByMode(layers.Layer):
    """What depends on the mode, in a layer of its own."""

    def call(self, inputs, training=None):
        return inputs * 2.0 if training else inputs


class AroundMode(layers.Layer):
    """A layer around others, with a number of its own in training."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.inner = layers.Dense(6, name="dense"), inner

    def call(self, inputs, training=None):
        x = self.dense(inputs)
        return self.inner(x, training=training) if self.inner else x * (2.0 if training else 1.0)

    def get_config(self):
        raise NotImplementedError  # or it would run as it is


class Scaled(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * ops.exp(self.scale)


def counted(model, x, training):
    model.calls += 1
    return x * model.calls


class TiedByHand(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed, self.dense = layers.Embedding(11, 6, name="embed"), layers.Dense(6, name="dense")

    def call(self, inputs):
        return ops.matmul(self.dense(self.embed(inputs)), ops.transpose(self.embed.embeddings))


class Tied(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed, self.dense = layers.ReversibleEmbedding(11, 6, name="embed"), layers.Dense(6, name="dense")

    def call(self, inputs):
        return self.embed(self.dense(self.embed(inputs)), reverse=True)


def twice_used_variable():
    variable = keras.Variable(np.ones(6, "float32"), name="shared")
    inputs = keras.Input((6,))
    return keras.Model(inputs, ops.add(inputs, variable) * variable)


class AddsAndMultiplies(Scaled):
    def call(self, inputs):
        return (inputs + self.scale) * self.scale


class Halves(layers.Layer):
    """Needs an even number of positions: more than a free size says."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="inside")

    def call(self, inputs):
        return self.dense(ops.reshape(inputs, (-1, 10)))


def of_free_size(size):
    inputs = keras.Input((size,))
    return keras.Model(inputs, Halves(name="halves")(inputs), name="free")


def different(change):
    """A model and a copy of it that something was done to."""
    model = sequence(layers.Rescaling(0.0, name="zeros"), layers.Dense(4, name="last"))
    rebuilt = to_tf_keras(model)
    change(rebuilt)
    return model, rebuilt


def off(rebuilt):
    rebuilt.layers[1].kernel.assign_add(np.full((6, 4), 1e-2, "float32"))


def crossed(model):
    """Copies a model of two branches, with its layers connected otherwise."""
    inputs = tf_keras().Input((6,), name="x")
    copies = {layer.name: tf_keras().layers.Dense(6, name=layer.name) for layer in model.layers[1:]}
    rebuilt = tf_keras().Model(inputs, copies["first"](copies["second"](inputs)))
    for layer in model.layers[1:]:
        copies[layer.name].set_weights(layer.get_weights())
    return rebuilt


def two_in_a_row():
    inputs = keras.Input((6,), name="x")
    return keras.Model(inputs, layers.Dense(6, name="second")(layers.Dense(6, name="first")(inputs)), name="row")


@functools.cache
def net():
    return sequence(layers.Dense(8, activation="relu", name="hidden"), layers.Dense(2, name="head"))


def wrapped():
    return Prune(0.5, end_step=4).apply(net())


def words(lookup):
    inputs = keras.Input((2,), dtype="string" if lookup else "int32")
    numbers = layers.StringLookup(vocabulary=["a", "b"], name="lookup")(inputs) if lookup else inputs
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(numbers))))


def taught_by_file(folder):
    path = tfdistill.export_tflite(net(), folder / "m.tflite").path
    assert tfdistill.verify(path, net(), X).argmax_agreement == 1.0
    distiller = tfdistill.Distiller(str(path), sequence(layers.Dense(2)), tfdistill.losses.SoftTargets())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(X, np.zeros(8), verbose=0)


def tflite_file(folder):
    return tfdistill.load_model(tfdistill.export_tflite(net(), folder / "m.tflite").path)


def of_keras_2(folder, lookup):
    tfk = tf_keras()
    inputs = tfk.Input((2,), dtype="string" if lookup else "int64")
    table = tfk.layers.StringLookup()
    table.adapt(["a", "b"])
    numbers = table(inputs) if lookup else inputs
    tfk.Model(inputs, tfk.layers.Dense(2)(tfk.layers.Flatten()(tfk.layers.Embedding(4, 3)(numbers)))).save(folder / "old.keras")
    return tfdistill.load_model(folder / "old.keras")


def cut(folder):
    net().save(folder / "m.keras")
    (folder / "m.keras").write_bytes((folder / "m.keras").read_bytes()[:900])
    return tfdistill.load_model(folder / "m.keras")


def saved_again(folder):
    net().save(folder / "m.keras")
    return tfdistill.load_model(folder / "m.keras"), keras.saving.load_model(folder / "m.keras", safe_mode=False)


def adopted_of(function):
    inputs = tf_keras().Input((6,))
    return tfdistill.adopt(tf_keras().Model(inputs, tf_keras().layers.Lambda(function)(inputs)))


def with_code(folder, load=keras.saving.load_model, **arguments):
    adopted_of(lambda x: x * 2.0).save(folder / "code.keras")
    return load(folder / "code.keras", **arguments)


def with_code_allowed(folder):
    keras.config.enable_unsafe_deserialization()
    try:
        return with_code(folder)
    finally:
        global_state.set_global_attribute("safe_mode_saving", True)


class OfMine(layers.Layer):
    def call(self, inputs):
        return inputs + 1.0


def names_mine(folder, **arguments):
    sequence(layers.Dense(2), OfMine()).save(folder / "mine.keras")
    return tfdistill.load_model(folder / "mine.keras", **arguments)


ROWS = {
    "a second layer": Row(
        "and decorate it with @keras.saving.register_keras_serializable()",
        lambda f: to_tf_keras(sequence(Opaque(name="own"))),
        lambda f: to_tf_keras(sequence(Square(name="own"))),
    ),
    "a layer of one's own": Row(
        "; or tfdistill.bridge.register_bridge(Opaque, builder) sets how 'model/own' is built",
        lambda f: to_tf_keras(sequence(Opaque(name="own"))),
        lambda f: (
            with_builder(Opaque, lambda layer, base: tf_keras().layers.Lambda(tf.math.square, **base), Opaque(name="own")),
            crosses(sequence(Traced(name="own"))),
        ),
    ),
    "a function that Keras cannot find": Row(
        "decorate classes and functions of your own with @keras.saving.register_keras_serializable()",
        lambda f: crosses(sequence(layers.Dense(2, activation=half))),
        lambda f: crosses(sequence(layers.Dense(2, activation=third))),
    ),
    "a builder that forgets the name": Row(
        "construct it with **base",
        lambda f: with_builder(Tripled, lambda layer, base: tf_keras().layers.Dense(3), Tripled(3, name="own")),
        lambda f: with_builder(Tripled, host, Tripled(3, name="own")),
    ),
    "a builder of a layer that takes something else": Row(
        "tfdistill.bridge.register_bridge(Pair, builder) sets how it is built",
        lambda f: pair(lambda layer, base: tf_keras().layers.Subtract(**base)),
        lambda f: pair(host),
    ),
    "a call of two arguments": Row(
        "make a functional model of it: one, other = keras.Input(shape), keras.Input(shape); keras.Model([one, other], model(one, other))",
        lambda f: to_tf_keras(called(OfTwo(name="two"), X, X)),
        lambda f: to_tf_keras(functional_of(called(OfTwo(name="two"), X, X))),
    ),
    "shapes that Keras has not kept": Row(
        "say what they are, in the structure that its call takes: to_tf_keras(model, inputs=keras.Input(...))",
        lambda f: to_tf_keras(built_by_itself()),
        lambda f: to_tf_keras(built_by_itself(), inputs=keras.Input((6,))),
    ),
    "a regularizer of one's own": Row(
        "use one of those, or take it off before the bridge",
        lambda f: to_tf_keras(sequence(layers.Dense(2, kernel_regularizer=Own()))),
        lambda f: (to_tf_keras(sequence(layers.Dense(2, kernel_regularizer="l2"))), to_tf_keras(sequence(layers.Dense(2)))),
    ),
    "quantized by Keras": Row(
        "bridge the model before `quantize` is called on it",
        lambda f: to_tf_keras(sequence(built_and_quantized())),
        lambda f: to_tf_keras(sequence(layers.Dense(4))),
    ),
    "an optional input": Row(
        "give the model one that is not", lambda f: to_tf_keras(optional_input(True)), lambda f: to_tf_keras(optional_input(False))
    ),
    "an operation that cannot be saved": Row(
        "replace it by a layer",
        lambda f: to_tf_keras(with_operation(Operation(lambda x: x + 1.0))),
        lambda f: to_tf_keras(with_operation(OfMine())),
    ),
    "a model without its arguments": Row(
        "give the class a get_config that holds all arguments of its constructor",
        lambda f: crosses(sequence(WithoutConfig(2, name="own"))),
        lambda f: crosses(sequence(WithConfig(2, name="own"))),
    ),
    "a model in pruning": Row(
        "strip the wrappers of pruning or clustering first",
        lambda f: to_keras(wrapped().legacy, net()),
        lambda f: to_keras(to_tf_keras(Prune(0.5, end_step=4).strip(wrapped())), net()),
    ),
    "a model in pruning, without an original": Row(
        "strip it by the step that made it, or adopt the model as it is: tfdistill.adopt(model)",
        lambda f: to_keras(wrapped().legacy),
        lambda f: (to_keras(to_tf_keras(Prune(0.5, end_step=4).strip(wrapped()))), tfdistill.adopt(wrapped().legacy)(X)),
    ),
    "a variable that no layer owns": Row(
        "make it the weight of a layer (add_weight), or give the model's class a get_config with its constructor's arguments",
        lambda f: crosses(of_a_variable()),
        lambda f: (crosses(sequence(layers.Dense(6), Offset())), crosses(called(WithOffset(name="own")))),
    ),
    "a Keras 3 model to to_keras": Row("a Keras 3 model needs no bridge: use it as it is", lambda f: to_keras(net()), lambda f: net()(X)),
    "a tf_keras model to to_tf_keras": Row(
        "a tf_keras model needs no bridge: use it as it is", lambda f: to_tf_keras(to_tf_keras(net())), lambda f: to_tf_keras(net())(X)
    ),
    "a layer that Keras 3 lacks": Row(
        "give the Keras 3 model that it was made from: to_keras(model, like=keras_model); or adopt it as it is: tfdistill.adopt(model)",
        lambda f: to_keras(to_tf_keras(sequence(Square()))),
        lambda f: (crosses(sequence(Square())), tfdistill.adopt(to_tf_keras(sequence(Square())))(X)),
    ),
    "weights of other shapes": Row(
        "build the counterpart so that it has the same weights; it has",
        lambda f: to_keras(to_tf_keras(sequence(layers.Dense(5, name="a"))), sequence(layers.Dense(4, name="a"))),
        lambda f: to_keras(to_tf_keras(sequence(layers.Dense(4, name="a"))), sequence(layers.Dense(4, name="a"))),
    ),
    "not built, to adopt": Row(
        "call it once, or give it an Input",
        lambda f: tfdistill.adopt(tf_keras().Sequential([tf_keras().layers.Dense(2)])),
        lambda f: (
            tfdistill.adopt(called(tf_keras().Sequential([tf_keras().layers.Dense(2)]))),
            tfdistill.adopt(tf_keras().Sequential([tf_keras().Input((6,)), tf_keras().layers.Dense(2)])),
        ),
    ),
    "not built, to the bridge": Row(
        "begin a Sequential model with keras.Input(shape), or call the model once on a batch",
        lambda f: to_tf_keras(keras.Sequential([layers.Dense(2)])),
        lambda f: (to_tf_keras(sequence(layers.Dense(2))), to_tf_keras(called(keras.Sequential([layers.Dense(2)])))),
    ),
    "text": Row(
        "turn text into indices in the data pipeline, before the model",
        lambda f: to_tf_keras(words(True)),
        lambda f: to_tf_keras(words(False)),
    ),
    # what a copy computes
    "a copy with a setting that differs": Row(
        "tfdistill.bridge.register_bridge(the layer's class, builder) sets how that layer is built; tfdistill.bridge.host runs it as it is",
        lambda f: with_builder(Tripled, lambda layer, base: tf_keras().layers.Dense(layer.units, **base), Tripled(3, name="own")),
        lambda f: with_builder(Tripled, host, Tripled(3, name="own")),
    ),
    "a copy with other weights": Row(
        "copy the weights of the Keras 3 model, all of them",
        lambda f: check_parity(*different(off)),
        lambda f: check_parity(*different(lambda rebuilt: None)),
    ),
    "a copy that is connected otherwise": Row(
        "connect it as the Keras 3 model is",
        lambda f: check_parity(*(lambda model: (model, crossed(model)))(two_in_a_row())),
        lambda f: check_parity(*(lambda model: (model, to_tf_keras(model)))(two_in_a_row())),
    ),
    "a size that a layer needs": Row(
        "give the sizes that the model needs in keras.Input(shape), and make the model of that",
        lambda f: to_tf_keras(of_free_size(None)),
        lambda f: to_tf_keras(of_free_size(20)),
    ),
    # what a call does
    "training mode always": Row(
        "pass on the mode that call() gets: training=training",
        lambda f: to_tf_keras(ending(lambda m, x, training: m.drop(x, training=True))),
        lambda f: to_tf_keras(ending(lambda m, x, training: m.drop(x, training=training))),
    ),
    "another graph in training": Row(
        "call the same layers in both modes with training=training (random layers do nothing at inference)",
        lambda f: to_tf_keras(ending(lambda m, x, training: m.drop(x, training=True) if training else x)),
        lambda f: to_tf_keras(ending(lambda m, x, training: m.drop(x, training=training))),
    ),
    "another number in training": Row(
        "put what depends on the mode into a layer of your own",
        lambda f: to_tf_keras(ending(lambda m, x, training: x * (2.0 if training else 1.0))),
        lambda f: with_registered(ByMode, lambda: to_tf_keras(ending(lambda m, x, training: m.layer(x, training=training), ByMode()))),
    ),
    "another number in training, inside a layer": Row(
        "put what depends on the mode into a layer inside it",
        lambda f: to_tf_keras(sequence(AroundMode(None))),
        lambda f: with_registered(ByMode, lambda: to_tf_keras(sequence(AroundMode(ByMode())))),
    ),
    "a counter": Row(
        "take counters, conditions on values and other state of Python out of call()",
        lambda f: to_tf_keras(ending(counted)),
        lambda f: to_tf_keras(ending(lambda m, x, training: x)),
    ),
    "a weight that is read": Row(
        "else write a layer of your own that owns the weight and computes with it, which is opened",
        lambda f: to_tf_keras(ending(lambda m, x, training: x * ops.exp(m.scale))),
        lambda f: to_tf_keras(ending(lambda m, x, training: m.layer(x), Scaled())),
    ),
    "embeddings tied by hand": Row(
        "for tied embeddings use keras.layers.ReversibleEmbedding, called with reverse=True the second time",
        lambda f: to_tf_keras(called(TiedByHand(name="tied"), np.zeros((2, 5), "float32")), inputs=keras.Input((5,))),
        lambda f: to_tf_keras(called(Tied(name="tied"), np.zeros((2, 5), "float32"))),
    ),
    "a variable that is used twice": Row(
        "or write a layer of your own that owns the weight and computes with it, which is opened",
        lambda f: to_tf_keras(twice_used_variable()),
        lambda f: to_tf_keras(sequence(AddsAndMultiplies())),
    ),
    "a layer to register": Row(
        "where that is not possible, register it: tfdistill.bridge.register_bridge(its class, tfdistill.bridge.host)",
        lambda f: to_tf_keras(twice_used_variable()),
        lambda f: with_registered(Square, lambda: to_tf_keras(sequence(Square()))),
    ),
    # files
    "a .tflite file": Row(
        "as a teacher, give its path to Distiller; to run it, tfdistill.verify and tfdistill.benchmark take the path",
        tflite_file,
        taught_by_file,
    ),
    "half a file": Row("save it again; if you trust where it comes from, keras.saving.load_model(path, safe_mode=False)", cut, saved_again),
    "a file with lookup tables": Row(
        "save the model without its lookup layers (StringLookup, IntegerLookup, TextVectorization), and run those in the data pipeline",
        lambda f: of_keras_2(f, lookup=True),
        lambda f: of_keras_2(f, lookup=False),
    ),
    "code in an adopted model": Row(
        "if you trust where it comes from, keras.saving.load_model(path, safe_mode=False), or keras.config.enable_unsafe_deserialization()",
        with_code,
        lambda f: (with_code(f, safe_mode=False), with_code_allowed(f)),
    ),
    "a class of mine in a file": Row(
        "if it is yours; load only files whose source you trust",
        names_mine,
        lambda f: (
            names_mine(f, custom_objects={"OfMine": OfMine}),
            keras.saving.load_model(f / "mine.keras", custom_objects={"OfMine": OfMine}),
        ),
    ),
}


def built_and_quantized():
    layer = layers.Dense(4, name="eight")
    layer.build((None, 6))
    return quantized(layer)


def with_registered(kind, act):
    register_bridge(kind, host)
    try:
        return act()
    finally:
        convert_layers._REGISTERED.pop(kind)


@pytest.mark.parametrize("name", ROWS)
def test_the_remedy_works(name, tmp_path):
    check(ROWS[name], tmp_path)
