"""What errors of the compression steps say to do is done here, and works."""

import contextlib
import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from kernel_models import Moody
from remedies_of_source import Row, check

import tfdistill
from tfdistill.bridge import AdoptedModel, host, register_bridge
from tfdistill.bridge.convert import layers as convert_layers
from tfdistill.compress import AdaRound, Cluster, Prune, Quantize, QuantizeAware, rounding_of
from tfdistill.tflite import check_preserved_structure
from tfdistill.tflite.inspection.preserved import require_trained_bits

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
IMAGES = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
CLUSTER, QUANTIZE = Cluster(4), QuantizeAware()
PRUNE = Prune(0.5, schedule="constant", frequency=1)


def dense_net(width=8, name="net"):
    parts = [layers.Dense(width, name="hidden"), layers.ReLU(name="relu"), layers.Dense(4, name="head")]
    return keras.Sequential([keras.Input((8,)), *parts], name=name)


@functools.cache
def net():
    return dense_net()


def hiding(number):
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(4, name="head")(ops.maximum(ops.where(x > 0.0, x, number), -1.0)))


def images(middle=layers.Conv2D):
    parts = [middle(4, 3, name="middle"), layers.Flatten(name="flat"), layers.Dense(4, name="head")]
    return keras.Sequential([keras.Input((6, 6, 2)), *parts])


def of_one(layer):
    return keras.Sequential([keras.Input((8,)), layer], name="net")


def cumprod():
    inputs = keras.Input((8,))
    return keras.Model(inputs, ops.cumprod(layers.Dense(4)(inputs), axis=-1))


def train(model, step=None, rate=1e-2, x=X, epochs=2):
    model.compile(keras.optimizers.SGD(rate), "mse", run_eagerly=True)
    model.fit(
        x, np.zeros((len(x), model.output_shape[-1])), epochs=epochs, batch_size=16, verbose=0, callbacks=step.callbacks() if step else []
    )
    return model


def stripped(step, model=None):
    return step.strip(train(step.apply(model or net()), step))


def checked(step, model=None, later=lambda model: None):
    made = stripped(step, model)
    later(made)
    step.check(made)


@functools.cache
def sparse():
    return stripped(PRUNE)


@functools.cache
def clustered():
    return stripped(CLUSTER)


def with_column_of_zeros():
    model = dense_net()
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.arange(8) == 2, 0.0, kernel.numpy()))
    return model


def exported(model, folder, variant="int8", **arguments):
    return tfdistill.export_tflite(model, folder / "m.tflite", variant, calibration=X, **arguments)


def four_bits(bits):
    return train(QuantizeAware(weight_bits=bits).apply(images()), x=IMAGES)


def trained_further(folder, then):
    model = train(QuantizeAware(preserve_sparsity=True).apply(sparse()))
    exported(model, folder)
    kernel = model.get_layer("hidden").layer.kernel
    kernel.assign(kernel.numpy()[::-1])
    then(model)
    check_preserved_structure(folder / "m.tflite", model)


def moods():
    return keras.Sequential([keras.Input((8,)), Moody(6, name="moody"), layers.Dense(4, name="head")], name="net")


def lost(folder, make, change):
    """Trains a model whose original is changed before `strip`; the trained weights are in a file then."""
    original = make()
    trained = train(PRUNE.apply(original), PRUNE)
    np.save(folder / "outputs.npy", trained(X))
    change(original)
    before = os.getcwd()
    os.chdir(folder)  # where `strip` puts the file
    try:
        PRUNE.strip(trained)
    finally:
        os.chdir(before)


def hosted(act):
    register_bridge(Moody, host)
    try:
        return act()
    finally:
        convert_layers._REGISTERED.pop(Moody)


def given_back(folder, make):
    model = PRUNE.apply(make())
    (path,) = folder.glob("net-trained-*/model.weights.h5")
    model.load_weights(path)
    np.testing.assert_allclose(PRUNE.strip(model)(X), np.load(folder / "outputs.npy"), rtol=1e-5, atol=1e-5)


def exported_images(model, folder):
    return tfdistill.export_tflite(model, folder / "m.tflite", "int8", calibration=IMAGES)


def with_solid():
    parts = [layers.Conv3D(3, 2, name="solid"), layers.Flatten(name="flat"), layers.Dense(4, name="head")]
    return keras.Sequential([keras.Input((4, 4, 4, 2)), *parts])


def with_lstm():
    return keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, name="lstm"), layers.Dense(4, name="head")])


@functools.cache
def of_gelu(target="xnnpack"):
    made = QuantizeAware(target=target).apply(of_one(layers.Dense(4, "gelu", name="wide")), dry_run=False)
    made(X, training=True)
    return made


def loaded(made, saved):
    """Loads the weights of one model into another, as a checkpoint does."""
    store = {}
    saved.save_own_variables(store)
    made.load_own_variables(store)


def of_form(name):
    saved = of_gelu("micro").get_config()
    return AdoptedModel.from_config({**saved, "legacy": saved["legacy"].replace("gelu_of_products", name)})


@functools.cache
def clustered_and_normalized():
    parts = [layers.Dense(6, name="hidden"), layers.BatchNormalization(), layers.Dense(4, name="head")]
    return stripped(Cluster(4, layers="hidden"), keras.Sequential([keras.Input((8,)), *parts]))


def run_away(factor, folder):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="sigmoid", kernel_initializer="orthogonal", name="bounded")])
    model.set_weights([factor * weight for weight in model.get_weights()])
    applied = QuantizeAware().apply(model)
    applied(X, training=True)
    return tfdistill.export_tflite(applied, folder / "m.tflite", "int8", verify_on=X)


def by_gradients(criterion, scope):
    with scope:
        return Prune(0.5, end_step=4, criterion=criterion).apply(net())


FEW = AdaRound(steps=2)


def plain_relu():
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.ReLU(name="relu")(layers.LayerNormalization()(layers.Dense(8, name="dense")(inputs))))


def of_one_batch(free):
    """A net that has its batch of 4 written down, and the same with a free one."""
    inputs = keras.Input((8,)) if free else keras.Input(batch_shape=(4, 8))
    return keras.Model(inputs, layers.Dense(3)(keras.ops.reshape(inputs, (-1 if free else 4, 8))))


ROWS = {
    "a class in place of its settings": Row(
        "give AdaRound(...), not the class",
        lambda f: Quantize(weight_bits=4, rounding=AdaRound),
        lambda f: Quantize(weight_bits=4, rounding=AdaRound()),
    ),
    "no weights of 4 bits": Row(
        "give weight_bits=4, or rounding={'*': 'adaround'} for weights of 8 bits",
        lambda f: Quantize(rounding=FEW).apply(net(), calibration=X),
        lambda f: [Quantize(rounding={"*": FEW}).apply(net(), X), Quantize(weight_bits=4, rounding=FEW).apply(net(), X)],
    ),
    "nothing to learn": Row(
        "leave out rounding=",
        lambda f: Quantize(rounding={"relu": FEW}).apply(plain_relu(), calibration=X),
        lambda f: Quantize().apply(plain_relu(), calibration=X),
    ),
    "nothing to learn in one of them": Row(
        "leave 'relu' out of rounding=",
        lambda f: Quantize(rounding={"relu": FEW, "dense": FEW}).apply(plain_relu(), calibration=X),
        lambda f: Quantize(rounding={"dense": FEW}).apply(plain_relu(), calibration=X),
    ),
    "a batch of fixed size": Row(
        "build it with keras.Input(shape) in place of keras.Input(batch_shape=...)",
        lambda f: Quantize(weight_bits=4, rounding=FEW).apply(of_one_batch(False), calibration=X),
        lambda f: Quantize(weight_bits=4, rounding=FEW).apply(of_one_batch(True), calibration=X),
    ),
    "a record of another process": Row(
        "save the record where the model is made: rounding_of(model).save('rounding.json')",
        lambda f: rounding_of(net()),
        lambda f: rounding_of(Quantize(weight_bits=4, rounding=FEW).apply(net(), X)).save(f / "rounding.json"),
    ),
    "gradients of several devices": Row(
        "prune by criterion='magnitude', or outside the strategy",
        lambda f: by_gradients("taylor", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()),
        lambda f: [by_gradients("taylor", contextlib.nullcontext()), by_gradients("magnitude", contextlib.nullcontext())],
    ),
    "one scale for clusters behind which a normalization is folded": Row(
        "leave out per_channel_dense=False",
        lambda f: Quantize(per_channel_dense=False).apply(clustered_and_normalized(), calibration=X),
        lambda f: Quantize().apply(clustered_and_normalized(), calibration=X),
    ),
    "ranges of another form": Row(
        "make the model with the target=, approximate= and integer_only= that the saved one had, or quantize the float model again",
        lambda f: loaded(of_gelu("micro"), of_gelu()),
        lambda f: (loaded(of_gelu("micro"), of_gelu("micro")), QuantizeAware(target="micro").apply(of_one(layers.Dense(4, "gelu")))),
    ),
    "a form of a later version": Row(
        "load the model with the version that saved it, or quantize the float model again",
        lambda f: of_form("gelu_of_tables"),
        lambda f: (of_form("gelu_of_products"), QuantizeAware().apply(net()), Quantize().apply(net(), calibration=X)),
    ),
    "zeros to keep where there are none": Row(
        "prune it first, or use 'auto'",
        lambda f: Cluster(4, preserve_sparsity=True).apply(net()),
        lambda f: (Cluster(4, preserve_sparsity=True).apply(sparse()), Cluster(4, preserve_sparsity="auto").apply(net())),
    ),
    "zeros to keep, quantized": Row(
        "prune it first, or use 'auto'",
        lambda f: QuantizeAware(preserve_sparsity=True).apply(net()),
        lambda f: (QuantizeAware(preserve_sparsity=True).apply(sparse()), QuantizeAware(preserve_sparsity="auto").apply(net())),
    ),
    "clusters to keep where there are none": Row(
        "cluster it first, or use 'auto'",
        lambda f: QuantizeAware(preserve_clusters=True).apply(net()),
        lambda f: (QuantizeAware(preserve_clusters=True).apply(clustered()), QuantizeAware(preserve_clusters="auto").apply(net())),
    ),
    "clusters that drifted apart": Row(
        "apply no later step that lets the values drift apart", lambda f: checked(CLUSTER, later=train), lambda f: checked(CLUSTER)
    ),
    "a layer that TFLite computes in float": Row(
        "leave these layers out of layers=",
        lambda f: QuantizeAware(layers=["solid", "head"]).plan(with_solid()).require_work(["solid"]),
        lambda f: QuantizeAware(layers=["head"]).plan(with_solid()).require_work(["head"]),
    ),
    "nothing to do": Row(
        "look at plan(model)",
        lambda f: PRUNE.apply(of_one(layers.ReLU(name="relu"))),
        lambda f: str(PRUNE.plan(of_one(layers.ReLU(name="relu")))).index("relu"),
    ),
    "a share beside a pattern": Row(
        "leave out sparsity=", lambda f: Prune(0.7, end_step=4, n_of_m=(2, 4)), lambda f: Prune(end_step=4, n_of_m=(2, 4)).apply(net())
    ),
    "a constant schedule with a beginning": Row(
        "use 'polynomial'",
        lambda f: Prune(0.5, 0.2, end_step=4, schedule="constant"),
        lambda f: Prune(0.5, 0.2, end_step=4, schedule="polynomial").apply(net()),
    ),
    "too few zeros": Row(
        "train under the step's callbacks() up to end_step=",
        lambda f: PRUNE.check(net()),
        lambda f: checked(PRUNE),
    ),
    "zeros that are filled in": Row(
        ", and apply no later step that fills zeros in", lambda f: checked(PRUNE, later=train), lambda f: checked(PRUNE)
    ),
    "channels of zeros": Row(
        "look at the steps after pruning, or whether these weights were zero before it",
        lambda f: checked(PRUNE, with_column_of_zeros()),
        lambda f: checked(PRUNE),
    ),
    "no calibration": Row(
        "apply(model, calibration=samples)", lambda f: Quantize().apply(net()), lambda f: Quantize().apply(net(), calibration=X)
    ),
    "calibration with one sample, again and again": Row(
        "give some hundred samples of real data",
        lambda f: Quantize().apply(net(), calibration=np.ones((32, 8))),
        lambda f: Quantize().apply(net(), calibration=X),
    ),
    "infinity in a layer": Row(
        "replace infinite constants by finite ones, such as -1e4 in a mask",
        lambda f: Quantize().apply(hiding(-np.inf), calibration=X),
        lambda f: Quantize().apply(hiding(-1e4), calibration=X),
    ),
    "a layer that nothing can be done to": Row(
        "leave it out of layers=",
        lambda f: QuantizeAware(layers=["lstm", "head"], unroll=False).apply(with_lstm()),
        lambda f: QuantizeAware(layers=["head"], unroll=False).apply(with_lstm()),
    ),
    "only such layers": Row(
        "choose other layers",
        lambda f: QuantizeAware(layers=["flat"]).apply(images()),
        lambda f: QuantizeAware(layers=["head"]).apply(images()),
    ),
    "what TFLite cannot do in integers": Row(
        "replace these layers, or train all the same with apply(model, dry_run=False)",
        lambda f: QUANTIZE.apply(cumprod()),
        lambda f: (QUANTIZE.apply(net()), train(QUANTIZE.apply(cumprod(), dry_run=False), QUANTIZE)),
    ),
    "four bits where TFLite has none": Row(
        "give it 8",
        lambda f: QuantizeAware(weight_bits={"middle": 4, "*": 8}).apply(images(layers.Conv2DTranspose)),
        lambda f: QuantizeAware(weight_bits={"middle": 8, "*": 8}).apply(images(layers.Conv2DTranspose)),
    ),
    "weights of 16 bits": Row(
        "for more precision give activation_bits=16; for weights of 16 bits export the float model as float16",
        lambda f: QuantizeAware(weight_bits=16),
        lambda f: (QuantizeAware(activation_bits=16).apply(net()), exported(net(), f, "float16")),
    ),
    "a model in pruning": Row(
        "give it what the earlier step's strip(model) returned; quantization-aware training comes last",
        lambda f: QUANTIZE.apply(PRUNE.apply(net())),
        lambda f: QUANTIZE.apply(sparse()),
    ),
    "a rule that no layer is left for": Row(
        "put the more special selectors first",
        lambda f: Prune({"*": 0.5, "head": 0.25}, end_step=4).plan(net()),
        lambda f: Prune({"head": 0.25, "*": 0.5}, end_step=4).plan(net()),
    ),
    "no rule": Row("use '*' for all the rest", lambda f: Prune({}, end_step=4), lambda f: Prune({"*": 0.5}, end_step=4).plan(net())),
    "two selections": Row(
        "leave out layers=",
        lambda f: Prune({"head": 0.5}, end_step=4, layers="hidden"),
        lambda f: Prune({"head": 0.5}, end_step=4).plan(net()),
    ),
    "ranges that were never trained": Row(
        "train the model with fit", lambda f: exported(QUANTIZE.apply(net()), f), lambda f: exported(train(QUANTIZE.apply(net())), f)
    ),
    "a training that breaks down": Row(
        "begin again from the model that `apply` was given, with a lower learning rate",
        lambda f: train(QUANTIZE.apply(net()), QUANTIZE, rate=1e20, epochs=4),
        lambda f: train(QUANTIZE.apply(net()), QUANTIZE),
    ),
    "an infinite input": Row(
        "look at the data if it is an input",
        lambda f: train(QUANTIZE.apply(net()), QUANTIZE, x=X * np.inf),
        lambda f: train(QUANTIZE.apply(net()), QUANTIZE, x=X),
    ),
    "a layer that breaks down": Row(
        "or leave the layer named first out: QuantizeAware(exclude=...)",
        lambda f: train(QUANTIZE.apply(net()), QUANTIZE, rate=1e20, epochs=4),
        lambda f: train(QuantizeAware(exclude="hidden").apply(net()), QUANTIZE),
    ),
    "an original with other weights": Row(
        "make the original model again as it was when apply() got it; then apply(original).load_weights('",
        lambda f: lost(f, dense_net, lambda model: model.get_layer("hidden").enable_lora(1)),
        lambda f: given_back(f, dense_net),
    ),
    "an original that cannot be made again": Row(
        "make the original model again as it was when apply() got it; then apply(original).load_weights('",
        lambda f: hosted(lambda: lost(f, moods, lambda model: setattr(Moody, "willing", False))),
        lambda f: hosted(lambda: (setattr(Moody, "willing", True), given_back(f, moods))),
    ),
    "weights of four bits that a file lacks": Row(
        "train these layers with weight_bits=8",
        lambda f: (exported_images(four_bits(8), f), require_trained_bits(f / "m.tflite", four_bits(4))),
        lambda f: (exported_images(four_bits(8), f), require_trained_bits(f / "m.tflite", four_bits(8))),
    ),
    "nothing to smooth": Row(
        "leave smooth= out",
        lambda f: Quantize(smooth=0.5).apply(images(), IMAGES),
        lambda f: Quantize().apply(images(), IMAGES),
    ),
    "weights that have run away": Row(
        "from the weights as they were before",
        lambda f: run_away(1e6, f),
        lambda f: run_away(1.0, f),
    ),
    "a file of before": Row(
        "export the model again",
        lambda f: trained_further(f, lambda model: None),
        lambda f: trained_further(f, lambda model: exported(model, f)),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_remedy_works(name, tmp_path):
    check(ROWS[name], tmp_path)
