"""What an error's `Fix:` says is done here, and works: a table of (how to provoke it, the fix's words, the fix done)."""

import pathlib
import typing

import fresh
import keras
import numpy as np
import pytest
import tensorflow as tf
from remedies_of_source import require_said
from small import CLASSES, data, mlp

import tfdistill
import tfdistill.losses.masking as masking
from tfdistill import CacheOptions, Distiller, Ensemble, StopAtTarget, TeacherReport
from tfdistill.distill import CallableTeacher, ChainSettings, SavedModelTeacher, Taps
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import (
    DIST,
    AttentionMaps,
    AttentionTransfer,
    BinarySoftTargets,
    ContrastiveRepresentation,
    CorrelationCongruence,
    DecoupledKD,
    HiddenStates,
    Hint,
    LinearSchedule,
    LogitMatching,
    OutputMatching,
    RelationalKD,
    SoftTargets,
)

X, Y = data(32)
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
WORDS = np.random.default_rng(1).normal(size=(32, 6, 4)).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
L = keras.layers


class Remedy(typing.NamedTuple):
    """One row.

    Attributes:
        error: Class of the error.
        words: Part of its `fix`.
        provoke: Function of a folder that raises it.
        remedy: Function of a folder that does what the fix says.
    """

    error: type[Exception]
    words: str
    provoke: typing.Callable[[pathlib.Path], typing.Any]
    remedy: typing.Callable[[pathlib.Path], typing.Any]


def net(*widths, classes=CLASSES, name="student", features=8):
    return mlp(*widths, classes=classes, name=name, features=features)


def image_net(channels, name="student", classes=CLASSES, size=8):
    inputs = keras.Input((size, size, 1))
    x = L.Conv2D(channels, 3, padding="same", name="conv")(inputs)
    return keras.Model(inputs, L.Dense(classes, name="logits")(L.GlobalAveragePooling2D(name="pool")(x)), name=name)


def word_net(width, heads=2, name="student", stride=1):
    inputs = keras.Input((6, 4))
    x = L.Conv1D(width, 1, strides=stride, name="states")(inputs)
    x = L.MultiHeadAttention(heads, 2, name="attention")(x, x)
    return keras.Model(inputs, L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling1D(name="pool")(x)), name=name)


def two_outputs(name):
    inputs = keras.Input((8,))
    return keras.Model(inputs, {"a": L.Dense(3, name="a")(inputs), "b": L.Dense(4, name="b")(inputs)}, name=name)


def fit(teacher, student, loss, x=X, y=Y, share=0.5, metrics=None, compiled=CROSS_ENTROPY, eagerly=True, **arguments):
    distiller = Distiller(teacher, student, loss, student_loss_weight=share)
    distiller.compile("sgd", loss=compiled if share else None, metrics=metrics, run_eagerly=eagerly)
    history = distiller.fit(x, y, verbose=0, **arguments).history
    assert np.isfinite(history["loss"]).all()
    return distiller


def dense(loss, classes=CLASSES, **arguments):
    """Trains with a loss of outputs over classes."""
    y = Y % classes if classes > 1 else Y
    return fit(net(6, classes=classes, name="teacher"), net(4, classes=classes), loss, y=y, share=0.0, **arguments)


def images(loss, teacher=4, student=3, **arguments):
    return fit(image_net(teacher, "teacher"), image_net(student), loss, x=IMAGES, **arguments)


def words(loss, teacher=(6, 2), student=(4, 2), **arguments):
    return fit(word_net(*teacher, name="teacher"), word_net(*student), loss, x=WORDS, **arguments)


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__(name="unbuilt")
        self.layer = L.Dense(CLASSES)

    def call(self, inputs):
        return self.layer(inputs)


def built(model):
    model(X)
    return model


def shared_layer():
    layer, inputs = L.Dense(8, name="shared"), keras.Input((8,))
    return keras.Model(inputs, L.Dense(CLASSES)(layer(layer(inputs))), name="teacher")


def resized():
    inputs = keras.Input((16, 16, 1))
    return keras.Model(inputs, image_net(3)(L.Resizing(8, 8)(inputs)), name="student")


BIG = np.random.default_rng(0).normal(size=(32, 16, 16, 1)).astype("float32")


def scored(report, classes=CLASSES, softmax=False):
    inputs = keras.Input((8,))
    models = [
        keras.Model(inputs, L.Dense(classes, activation="softmax" if softmax else None)(inputs), name=name)
        for name in ("teacher", "student")
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax) if classes > 1 else keras.losses.MeanSquaredError()
    y = Y if classes > 1 else Y[:, None].astype("float32") + 0.5
    return fit(*models, SoftTargets(from_logits=not softmax) if classes > 1 else OutputMatching(), y=y, compiled=loss, metrics=[report])


def stopping(stop, share=0.5, validated=True, metrics=("accuracy",)):
    arguments = {"validation_data": (X, Y)} if validated else {}
    return fit(net(6, name="teacher"), net(4), SoftTargets(), share=share, metrics=list(metrics), callbacks=[stop], **arguments)


def alone(stop):
    model = net(4)
    model.compile("sgd", CROSS_ENTROPY, metrics=["accuracy"], run_eagerly=True)
    return model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[stop])


def cached(folder, teacher=None, dataset=X, **options):
    teacher = teacher or net(6, name="teacher")
    return tfdistill.soft_targets(teacher, dataset, folder / "cache", options=CacheOptions(**options))


def taught(folder, joined=True, loss=None, **options):
    cache = cached(folder, dataset=(X, Y), **options)
    x, y = (cache.join((X, Y), batch_size=16), None) if joined else (X, Y)
    return fit(cache, net(4), loss or SoftTargets(4.0), x=x, y=y, shuffle=False)


def of_top_k(folder, temperature):
    cache = cached(folder, dataset=(X, Y), top_k=2, temperatures=(2.0,))
    return fit(cache, net(4), SoftTargets(temperature), x=cache.join((X, Y), batch_size=16), y=None, shuffle=False)


def augmented(how):
    return lambda x, seed: x + (tf.random.normal(tf.shape(x)) if how == "stateful" else tf.random.stateless_normal(tf.shape(x), seed))


def settings(**changes):
    return ChainSettings(SoftTargets(), **{"loss": CROSS_ENTROPY, **changes})


def averaged(how):
    students = [net(4, name="one"), net(5, name="two")]
    return tfdistill.many_to_one(students, net(4), settings(), X, Y, how=how)


def file_teacher(folder, inputs):
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    model = keras.Model({"a": a, "b": b}, L.Dense(3)(L.Add()([a, b])), name="teacher")
    model.export(folder / "saved", verbose=False)
    return SavedModelTeacher(folder / "saved")(inputs)


def by_tensorflow():
    wide = net(6, name="teacher")
    return CallableTeacher(lambda x: wide.predict(x, verbose=0))


def by_two_threads(environment, *arguments):
    """Trains the same in a new process, whose threads can still be set: the tests' own has one for the operations of a step."""
    done = fresh.run(pathlib.Path(__file__).with_name("two_threads_job.py"), *arguments, env={**fresh.several_devices(), **environment})
    assert done.stdout == "trained\n", done.stderr


REMEDIES = {
    # losses on outputs
    "probabilities of both": Remedy(
        ConfigurationError,
        "set from_logits=False: write tfdistill.losses.SoftTargets(from_logits=False)",
        lambda f: fit(*softmaxes(), SoftTargets()),
        lambda f: fit(*softmaxes(), SoftTargets(from_logits=False), compiled="sparse_categorical_crossentropy"),
    ),
    "from_logits contradicts a side": Remedy(
        ConfigurationError,
        "leave out from_logits=False, or teacher_outputs='logits'",
        lambda f: SoftTargets(from_logits=False, teacher_outputs="logits"),
        lambda f: (SoftTargets(teacher_outputs="logits"), SoftTargets(from_logits=False)),
    ),
    "one class": Remedy(
        ModelError,
        "use tfdistill.losses.BinarySoftTargets() for one yes-no output, or tfdistill.losses.OutputMatching()",
        lambda f: dense(SoftTargets(), classes=1),
        lambda f: (dense(tfdistill.losses.BinarySoftTargets(), classes=1), dense(tfdistill.losses.OutputMatching(), classes=1)),
    ),
    "standardized, two classes": Remedy(
        ModelError,
        "set standardize=False",
        lambda f: dense(SoftTargets(standardize=True), classes=2),
        lambda f: dense(SoftTargets(standardize=False), classes=2),
    ),
    "centered, one logit": Remedy(
        ModelError,
        "set centered=False",
        lambda f: dense(LogitMatching(centered=True), classes=1),
        lambda f: dense(LogitMatching(centered=False), classes=1),
    ),
    "DIST, two classes": Remedy(
        ModelError,
        "set beta=0.0, which leaves the correlation within each class, or use SoftTargets",
        lambda f: dense(DIST(), classes=2),
        lambda f: (dense(DIST(beta=0.0), classes=2), dense(SoftTargets(), classes=2)),
    ),
    "DIST, a small batch": Remedy(
        ConfigurationError,
        "give `fit` a batch_size of at least 3 (relations of fewer than about 32 say little), or set gamma=0.0",
        lambda f: dense(DIST(), batch_size=2),
        lambda f: (dense(DIST(), batch_size=3), dense(DIST(gamma=0.0), batch_size=2)),
    ),
    "decoupled, two classes": Remedy(
        ModelError,
        "give `alpha` a positive weight",
        lambda f: dense(DecoupledKD(alpha=0.0, target="teacher"), classes=2),
        lambda f: dense(DecoupledKD(alpha=1.0, target="teacher"), classes=2),
    ),
    "labels in Keras's Distiller": Remedy(
        ConfigurationError,
        "train with tfdistill.Distiller on data with labels",
        lambda f: DecoupledKD().compute_loss(np.zeros((2, 3)), np.zeros((2, 3))),
        lambda f: dense(DecoupledKD()),
    ),
    "a schedule without a step": Remedy(
        ConfigurationError,
        "train with tfdistill.Distiller, or give a constant",
        lambda f: SoftTargets(LinearSchedule(4.0, 1.0, 10)).compute_loss(np.zeros((2, 3)), np.zeros((2, 3))),
        lambda f: (dense(SoftTargets(LinearSchedule(4.0, 1.0, 10))), SoftTargets(4.0).compute_loss(np.zeros((2, 3)), np.zeros((2, 3)))),
    ),
    "one sample of a relation": Remedy(
        ConfigurationError,
        "use compute_loss",
        lambda f: DIST().per_sample(np.eye(3), np.eye(3)),
        lambda f: DIST().compute_loss(np.eye(3), np.eye(3)),
    ),
    "one loss for two outputs": Remedy(
        ModelError,
        "give one loss per output, by the output's name",
        lambda f: fit(two_outputs("teacher"), two_outputs("student"), SoftTargets(), share=0.0, y=None),
        lambda f: fit(two_outputs("teacher"), two_outputs("student"), {"a": SoftTargets(), "b": SoftTargets()}, share=0.0, y=None),
    ),
    "an output misspelt": Remedy(
        ModelError,
        "use one of its output names. There are: 'a', 'b'.",
        lambda f: fit(two_outputs("teacher"), two_outputs("student"), {"wrong": SoftTargets()}, share=0.0, y=None),
        lambda f: fit(two_outputs("teacher"), two_outputs("student"), {"a": SoftTargets(), "b": SoftTargets()}, share=0.0, y=None),
    ),
    # losses on features
    "Keras's features of unequal widths": Remedy(
        ModelError,
        "use tfdistill.losses.Hint('conv', 'conv')",
        lambda f: images(keras.distillation.FeatureDistillation(teacher_layer_name="conv", student_layer_name="conv")),
        lambda f: images(tfdistill.losses.Hint("conv", "conv")),
    ),
    "Keras's features of unequal widths, after pooling": Remedy(
        ModelError,
        "use tfdistill.losses.Hint('pool', 'pool')",
        lambda f: images(keras_features("pool")),
        lambda f: images(tfdistill.losses.Hint("pool", "pool")),
    ),
    "Keras's features of unequal widths, of sequences": Remedy(
        ModelError,
        "use tfdistill.losses.Hint('states', 'states')",
        lambda f: words(keras_features("states")),
        lambda f: words(tfdistill.losses.Hint("states", "states")),
    ),
    "Keras's features of unequal widths, of dense layers": Remedy(
        ModelError,
        "use tfdistill.losses.Hint('hidden_0', 'hidden_0')",
        lambda f: fit(net(6, name="teacher"), net(4), keras_features("hidden_0")),
        lambda f: fit(net(6, name="teacher"), net(4), tfdistill.losses.Hint("hidden_0", "hidden_0")),
    ),
    "Keras's features of unequal sizes": Remedy(
        ModelError,
        "use tfdistill.losses.Hint('states', 'states')",
        lambda f: fit(word_net(4, name="teacher"), word_net(4, stride=2), keras_features("states"), x=WORDS),
        lambda f: fit(word_net(4, name="teacher"), word_net(4, stride=2), tfdistill.losses.Hint("states", "states"), x=WORDS),
    ),
    "no projection": Remedy(
        ConfigurationError,
        "set projection='auto'",
        lambda f: images(Hint("conv", "conv", projection=None)),
        lambda f: images(Hint("conv", "conv", projection="auto")),
    ),
    "a 1x1 convolution without positions": Remedy(
        ConfigurationError,
        "set projection='dense'",
        lambda f: images(Hint("pool", "pool", projection="conv1x1")),
        lambda f: images(Hint("pool", "pool", projection="dense")),
    ),
    "the direction of one channel": Remedy(
        ModelError,
        "set loss='mse'",
        lambda f: images(Hint("conv", "conv", loss="cosine"), teacher=1, student=1),
        lambda f: images(Hint("conv", "conv", loss="mse"), teacher=1, student=1),
    ),
    "before and after pooling": Remedy(
        ConfigurationError,
        "tap a layer before pooling or flattening on both sides, or after it on both",
        lambda f: images(Hint("conv", "pool")),
        lambda f: (images(Hint("conv", "conv")), images(Hint("pool", "pool"))),
    ),
    "a projection in Keras's Distiller": Remedy(
        ModelError,
        "train with tfdistill.Distiller, which owns a learned projection for projection='auto'",
        lambda f: Hint("conv", "conv").compute_loss(np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 2))),
        lambda f: images(Hint("conv", "conv")),
    ),
    "states of other positions": Remedy(
        ConfigurationError,
        "use Hint to pool positions",
        lambda f: words(HiddenStates("states", "states"), student=(4, 2, "student", 2)),
        lambda f: fit(word_net(6, name="teacher"), word_net(4, stride=2), Hint("states", "states"), x=WORDS),
    ),
    "states without positions": Remedy(
        ConfigurationError,
        "tap layers with positions on both sides",
        lambda f: words(HiddenStates("states", "pool")),
        lambda f: words(HiddenStates("states", "states")),
    ),
    "maps of pooled features": Remedy(
        ModelError,
        "tap layers before pooling or flattening",
        lambda f: images(AttentionTransfer("pool", "pool")),
        lambda f: images(AttentionTransfer("conv", "conv")),
    ),
    "maps of unequal heads": Remedy(
        ModelError,
        "set heads='mean'",
        lambda f: words(AttentionMaps("attention", "attention"), teacher=(6, 3)),
        lambda f: words(AttentionMaps("attention", "attention", heads="mean"), teacher=(6, 3)),
    ),
    "scores in Keras's Distiller": Remedy(
        ModelError,
        "name MultiHeadAttention layers and train with tfdistill.Distiller",
        lambda f: AttentionMaps("attention", "attention").compute_loss(np.zeros((2, 6, 4)), np.zeros((2, 6, 4))),
        lambda f: words(AttentionMaps("attention", "attention")),
    ),
    "contrast of unequal widths": Remedy(
        ConfigurationError,
        "give `dimensions` and train with tfdistill.Distiller",
        lambda f: images(ContrastiveRepresentation("pool", "pool", dimensions=None)),
        lambda f: images(ContrastiveRepresentation("pool", "pool", dimensions=8)),
    ),
    "contrast of one number": Remedy(
        ModelError,
        "give `dimensions` of at least 2",
        lambda f: images(ContrastiveRepresentation("pool", "pool", dimensions=1)),
        lambda f: images(ContrastiveRepresentation("pool", "pool", dimensions=2)),
    ),
    "congruence of one number": Remedy(
        ModelError,
        "tap a wider layer of the student, or use RelationalKD",
        lambda f: images(CorrelationCongruence(teacher_layer_name="pool", student_layer_name="pool"), student=1),
        lambda f: (
            images(CorrelationCongruence(teacher_layer_name="pool", student_layer_name="conv"), student=1),
            images(RelationalKD(teacher_layer_name="pool", student_layer_name="pool"), student=1),
        ),
    ),
    "angles on a line": Remedy(
        ModelError,
        "give `distance_weight` a positive value",
        lambda f: images(RelationalKD(0.0, teacher_layer_name="pool", student_layer_name="pool"), student=1),
        lambda f: images(RelationalKD(1.0, teacher_layer_name="pool", student_layer_name="pool"), student=1),
    ),
    "a relation of one sample": Remedy(
        ConfigurationError,
        "give `fit` a batch_size of at least 3 (relations of fewer than about 32 say little)",
        lambda f: images(RelationalKD(teacher_layer_name="pool", student_layer_name="pool"), batch_size=1),
        lambda f: images(RelationalKD(teacher_layer_name="pool", student_layer_name="pool"), batch_size=3),
    ),
    "a layer that is called twice": Remedy(
        ModelError,
        "say which call is meant: 'shared@0' to 'shared@1'",
        lambda f: Taps(shared_layer(), ["shared"])(X),
        lambda f: (Taps(shared_layer(), ["shared@0"])(X), Taps(shared_layer(), ["shared@1"])(X)),
    ),
    # teacher and student
    "one model": Remedy(
        ModelError,
        "keras.models.clone_model makes a second one",
        lambda f: (lambda one: Distiller(one, one, SoftTargets()))(net(4)),
        lambda f: (lambda one: fit(one, keras.models.clone_model(one), SoftTargets()))(net(4)),
    ),
    "a student of tf_keras": Remedy(
        ModelError,
        "a tf_keras model is taken as tfdistill.adopt(model)",
        lambda f: Distiller(net(6), tfdistill.to_tf_keras(net(4)), SoftTargets()),
        lambda f: Distiller(net(6), tfdistill.adopt(tfdistill.to_tf_keras(net(4))), SoftTargets()),
    ),
    "other classes": Remedy(
        ModelError,
        "give both models the same number of classes",
        lambda f: fit(net(6, classes=7, name="teacher"), net(4), SoftTargets()),
        lambda f: fit(net(6, name="teacher"), net(4), SoftTargets()),
    ),
    "other sizes of inputs": Remedy(
        ModelError,
        "put the resizing that one of them needs inside that model",
        lambda f: fit(image_net(4, "teacher", size=16), image_net(3), SoftTargets(), x=BIG),
        lambda f: fit(image_net(4, "teacher", size=16), resized(), SoftTargets(), x=BIG),
    ),
    "a teacher that is not built": Remedy(
        ModelError,
        "train it or load its weights first",
        lambda f: fit(Unbuilt(), net(4), SoftTargets()),
        lambda f: fit(built(Unbuilt()), net(4), SoftTargets()),
    ),
    "no loss": Remedy(
        ConfigurationError,
        "give one, or train with student_loss_weight=0",
        lambda f: fit(net(6), net(4), SoftTargets(), compiled=None),
        lambda f: (fit(net(6), net(4), SoftTargets()), fit(net(6), net(4), SoftTargets(), share=0.0)),
    ),
    "a tap of a black box": Remedy(
        ModelError,
        "use losses on the final outputs, such as tfdistill.losses.SoftTargets",
        lambda f: fit(CallableTeacher(lambda x: x[:, :CLASSES]), net(4), Hint("hidden_0", "hidden_0")),
        lambda f: fit(CallableTeacher(lambda x: x[:, :CLASSES]), net(4), tfdistill.losses.SoftTargets()),
    ),
    "a callable whose shape is not known": Remedy(
        ModelError,
        "give the shape: CallableTeacher(function, output_shape=(classes,))",
        lambda f: compiled(CallableTeacher(lambda x: x[:, :CLASSES])).evaluate(X, Y, verbose=0),
        lambda f: compiled(CallableTeacher(lambda x: x[:, :CLASSES], output_shape=(CLASSES,))).evaluate(X, Y, verbose=0),
    ),
    "a callable that runs a TensorFlow function, on one thread": Remedy(
        ModelError,
        "give TensorFlow another thread: TF_NUM_INTEROP_THREADS=2 in the environment",
        lambda f: fit(by_tensorflow(), net(4), SoftTargets(), eagerly=False),
        lambda f: (
            fit(by_tensorflow(), net(4), SoftTargets(), eagerly=True),
            by_two_threads({"TF_NUM_INTEROP_THREADS": "2"}),
            by_two_threads({}, 2),
        ),
    ),
    "a callable that cannot be saved": Remedy(
        ConfigurationError,
        "save the student alone: distiller.student.save(...)",
        lambda f: compiled(CallableTeacher(lambda x: x[:, :CLASSES], output_shape=(CLASSES,))).save(f / "distiller.keras"),
        lambda f: compiled(CallableTeacher(lambda x: x[:, :CLASSES], output_shape=(CLASSES,))).student.save(f / "student.keras"),
    ),
    "inputs without names": Remedy(
        ModelError,
        "feed a dict with the keys ['a', 'b']",
        lambda f: file_teacher(f, [X, X]),
        lambda f: file_teacher(f, {"a": X, "b": X}),
    ),
    "an ensemble of numbers": Remedy(
        ConfigurationError,
        'Ensemble(members, average="logits", outputs="numbers")',
        lambda f: Ensemble([net(4), net(5)], outputs="numbers"),
        lambda f: Ensemble([net(4), net(5)], average="logits", outputs="numbers"),
    ),
    "an ensemble of one class": Remedy(
        ModelError,
        "average='logits'",
        lambda f: Ensemble([net(4, classes=1), net(5, classes=1)])(X),
        lambda f: Ensemble([net(4, classes=1), net(5, classes=1)], average="logits")(X),
    ),
    "an ensemble in another space": Remedy(
        ConfigurationError,
        "Ensemble(members, average='probabilities', outputs='probabilities')",
        lambda f: fit(Ensemble(softmaxes()), net(4), SoftTargets()),
        lambda f: fit(Ensemble(softmaxes(), average="probabilities", outputs="probabilities"), net(4), SoftTargets()),
    ),
    "a file that safe mode refuses": Remedy(
        ModelError,
        "if you trust where it comes from, keras.saving.load_model(path, safe_mode=False)",
        lambda f: as_teacher(with_lambda(f)),
        lambda f: as_teacher(keras.saving.load_model(with_lambda(f), safe_mode=False)),
    ),
    # reports, early stopping
    "a report of the wrong space": Remedy(
        ConfigurationError,
        "TeacherReport(outputs='logits', teacher_outputs='probabilities')",
        lambda f: scored(TeacherReport(), softmax=True),
        lambda f: scored(TeacherReport(outputs="probabilities"), softmax=True),
    ),
    "a report of a regression": Remedy(
        ConfigurationError,
        "TeacherReport(metrics=[keras.metrics.MeanAbsoluteError()], outputs='numbers')",
        lambda f: scored(TeacherReport(), classes=1),
        lambda f: scored(TeacherReport(metrics=[keras.metrics.MeanAbsoluteError()], outputs="numbers"), classes=1),
    ),
    "stopping without validation": Remedy(
        ConfigurationError,
        "give validation_data to fit, and the metric to compile",
        lambda f: stopping(StopAtTarget(0.9, teacher_value=0.9), validated=False),
        lambda f: stopping(StopAtTarget(0.9, teacher_value=0.9)),
    ),
    "stopping by a loss that is not computed": Remedy(
        ConfigurationError,
        'compare a metric such as "val_accuracy"',
        lambda f: stopping(StopAtTarget(0.9, "val_loss", teacher_value=0.9), share=0.0),
        lambda f: stopping(StopAtTarget(0.9, "val_accuracy", teacher_value=0.9), share=0.0),
    ),
    "stopping a model without a teacher": Remedy(
        ConfigurationError,
        "give teacher_value instead of validation_data",
        lambda f: alone(StopAtTarget(0.9, validation_data=(X, Y))),
        lambda f: alone(StopAtTarget(0.9, teacher_value=0.9)),
    ),
    # caches
    "a cache that is not joined": Remedy(
        ModelError,
        "distiller.fit(cache.join((x, y), batch_size=32))",
        lambda f: taught(f, joined=False),
        lambda f: taught(f / "again"),
    ),
    "another temperature than the cache's": Remedy(
        ConfigurationError,
        "use one of them, or write the cache again",
        lambda f: of_top_k(f, 4.0),
        lambda f: of_top_k(f / "again", 2.0),
    ),
    "the largest of probabilities": Remedy(
        ConfigurationError,
        "take the softmax off the teacher, or let it return the logarithm",
        lambda f: cached(f, teacher=softmaxes()[0], top_k=2),
        lambda f: (cached(f / "again", top_k=2), cached(f / "logarithm", teacher=logarithm(), top_k=2)),
    ),
    "an augmentation that differs": Remedy(
        DataError,
        "tf.random.stateless_* with the seed that it is given",
        lambda f: cached(f, augment=augmented("stateful"), views=2),
        lambda f: cached(f / "again", augment=augmented("stateless"), views=2),
    ),
    "a shuffled dataset": Remedy(
        DataError,
        "take shuffle() and random augmentation out of it",
        lambda f: cached(f, dataset=tf.data.Dataset.from_tensor_slices(X).shuffle(32, seed=None).batch(8)),
        lambda f: cached(f / "again", dataset=tf.data.Dataset.from_tensor_slices(X).batch(8)),
    ),
    "an endless dataset": Remedy(
        DataError,
        "take repeat() away",
        lambda f: cached(f, dataset=tf.data.Dataset.from_tensor_slices(X).batch(8).repeat()),
        lambda f: cached(f / "again", dataset=tf.data.Dataset.from_tensor_slices(X).batch(8)),
    ),
    "layers that are no list": Remedy(
        ConfigurationError,
        "layers=['hidden_0']",
        lambda f: cached(f, layers="hidden_0"),
        lambda f: cached(f / "again", layers=["hidden_0"]),
    ),
    # outputs in another space
    "probabilities of both, without the softmax": Remedy(
        ConfigurationError,
        "; or remove the softmax at the end of the teacher and the student",
        lambda f: fit(*softmaxes(), SoftTargets()),
        lambda f: fit(net(4, name="teacher"), net(4), SoftTargets()),
    ),
    "sigmoids of several labels": Remedy(
        ConfigurationError,
        "use tfdistill.losses.BinarySoftTargets(from_logits=False), whose labels do not exclude one another",
        lambda f: fit(*sigmoids(), SoftTargets(), y=LABELS, compiled="binary_crossentropy"),
        lambda f: fit(*sigmoids(), BinarySoftTargets(from_logits=False), y=LABELS, compiled="binary_crossentropy"),
    ),
    "logits that are probabilities": Remedy(
        ConfigurationError,
        "remove the softmax at the end of the teacher, or use tfdistill.losses.SoftTargets(from_logits=False)",
        lambda f: fit(*softmaxes(), LogitMatching()),
        lambda f: (
            fit(net(4, name="teacher"), net(4), LogitMatching()),
            fit(*softmaxes(), SoftTargets(from_logits=False), compiled="sparse_categorical_crossentropy"),
        ),
    ),
    "a class that is masked": Remedy(
        ConfigurationError,
        "set standardize=False, or leave the masked classes out of the outputs",
        lambda f: fit(with_masked_class(), net(4), SoftTargets(standardize=True)),
        lambda f: (
            fit(with_masked_class(), net(4), SoftTargets(standardize=False)),
            fit(left_out(with_masked_class()), net(4, classes=CLASSES - 1), SoftTargets(standardize=True), y=Y % (CLASSES - 1)),
        ),
    ),
    "DIST, no relations": Remedy(
        ConfigurationError, "set gamma=0.0", lambda f: dense(DIST(), batch_size=1), lambda f: dense(DIST(gamma=0.0), batch_size=1)
    ),
    "a student of NaN": Remedy(
        DataError,
        "look for a wrong preprocessing, an overflow of float16, or a learning rate that is too high",
        lambda f: fit(net(6, name="teacher"), with_bias(np.nan), SoftTargets()),
        lambda f: fit(net(6, name="teacher"), with_bias(0.0), SoftTargets()),
    ),
    # features
    "maps of one position": Remedy(
        ModelError,
        "tap earlier layers",
        lambda f: fit(late_net("teacher"), late_net("student"), AttentionTransfer("late", "late"), x=IMAGES),
        lambda f: fit(late_net("teacher"), late_net("student"), AttentionTransfer("conv", "conv"), x=IMAGES),
    ),
    "attention between other positions": Remedy(
        ModelError,
        "tap layers that see the same positions",
        lambda f: words(AttentionMaps("attention", "attention"), student=(4, 2, "student", 2)),
        lambda f: words(AttentionMaps("attention", "attention")),
    ),
    "attention to one position": Remedy(
        ModelError,
        "tap layers that see at least two positions",
        lambda f: fit(word_net(6, stride=6, name="teacher"), word_net(4, stride=6), AttentionMaps("attention", "attention"), x=WORDS),
        lambda f: fit(word_net(6, stride=3, name="teacher"), word_net(4, stride=3), AttentionMaps("attention", "attention"), x=WORDS),
    ),
    "a loss that needs all logits": Remedy(
        ConfigurationError,
        "keep whole outputs (top_k=None), or teach with SoftTargets",
        lambda f: taught(f, loss=LogitMatching(), top_k=2),
        lambda f: (taught(f / "again", loss=LogitMatching()), taught(f / "soft", loss=SoftTargets(1.0), top_k=2)),
    ),
    "positions without an axis behind them": Remedy(
        ModelError,
        "let the layer keep an axis behind the positions: (batch, positions, 1) instead of (batch, positions)",
        lambda f: OutputMatching().compute_loss(padded(WORDS[..., 0]), padded(WORDS[..., 1])),
        lambda f: OutputMatching().compute_loss(padded(WORDS[..., :1]), padded(WORDS[..., 1:2])),
    ),
    "a layer that is not called": Remedy(
        ModelError,
        "tap a layer that the model calls",
        lambda f: Taps(built(Idle()), ["idle"])(X),
        lambda f: Taps(built(Idle()), ["body"])(X),
    ),
    "a layer in a loop": Remedy(
        ModelError,
        "tap the layer around it",
        lambda f: tf.function(Taps(recurrent(), ["rnn/cell"]), autograph=False)(WORDS),
        lambda f: tf.function(Taps(recurrent(), ["rnn"]), autograph=False)(WORDS),
    ),
    "a name misspelt": Remedy(
        ModelError,
        "use the name of a layer as `summary()` prints it. Nearest: 'conv'.",
        lambda f: images(Hint("konv", "conv")),
        lambda f: images(Hint("conv", "conv")),
    ),
    "a name of two layers": Remedy(
        ModelError,
        "give the full path of the one you mean",
        lambda f: Taps(of_two_blocks(), ["dense"])(X),
        lambda f: Taps(of_two_blocks(), ["left/dense"])(X),
    ),
    # teachers
    "a function that is not imported": Remedy(
        ModelError,
        "import the module that defines it before loading",
        lambda f: loaded(registered(f), known=False),
        lambda f: loaded(registered(f), known=True),
    ),
    "an ensemble of yes-no probabilities": Remedy(
        ConfigurationError,
        "Ensemble(members, average='logits', outputs='numbers') averages yes-no probabilities as they are",
        lambda f: fit(Ensemble(sigmoids()), net(4), SoftTargets()),
        lambda f: fit(
            Ensemble(sigmoids(), average="logits", outputs="numbers"),
            sigmoids()[1],
            BinarySoftTargets(from_logits=False),
            y=LABELS,
            compiled="binary_crossentropy",
        ),
    ),
    "an ensemble of shares": Remedy(
        ConfigurationError,
        "; outputs='numbers' where the outputs are no classes",
        lambda f: fit(Ensemble(softmaxes(), average="logits"), net(4), OutputMatching()),
        lambda f: fit(Ensemble(softmaxes(), average="logits", outputs="numbers"), net(4), OutputMatching()),
    ),
    # reports, early stopping, chains
    "a report of classes and of numbers": Remedy(
        ConfigurationError,
        "TeacherReport(task='multiclass')",
        lambda f: TeacherReport(task="multiclass", outputs="numbers", metrics=[keras.metrics.MeanAbsoluteError()]),
        lambda f: scored(TeacherReport(task="multiclass")),
    ),
    "a report of several outputs": Remedy(
        ModelError,
        "give one TeacherReport(output=...) for each output to report on",
        lambda f: reported([TeacherReport()]),
        lambda f: reported([TeacherReport(output="a"), TeacherReport(output="b", name="of_b")]),
    ),
    "a teacher that is worth nothing": Remedy(
        DataError,
        "choose a metric of another scale, or look at the teacher",
        lambda f: StopAtTarget(0.9, teacher_value=0.0),
        lambda f: (stopping(StopAtTarget(0.9, teacher_value=0.5)), stopping(StopAtTarget(0.9, "val_loss", teacher_value=0.5))),
    ),
    "a metric that only the student has": Remedy(
        ConfigurationError,
        "give teacher_metric, or teacher_value",
        lambda f: stopping(StopAtTarget(0.9, "val_right", validation_data=(X, Y), direction="max"), metrics=[right()]),
        lambda f: (
            stopping(StopAtTarget(0.9, "val_right", validation_data=(X, Y), teacher_metric=right(), direction="max"), metrics=[right()]),
            stopping(StopAtTarget(0.9, "val_right", teacher_value=0.5, direction="max"), metrics=[right()]),
        ),
    ),
    "data in the settings of a chain": Remedy(
        ConfigurationError,
        "give data to the chain's function, and epochs by the setting",
        lambda f: settings(fit={"epochs": 2, "validation_data": (X, Y)}),
        lambda f: tfdistill.assistants(net(6), [net(4)], settings(epochs=2), X, Y, validation_data=(X, Y)),
    ),
    "an optimizer among the arguments of compile": Remedy(
        ConfigurationError,
        "give them by the settings of these names",
        lambda f: settings(compile={"optimizer": "sgd", "metrics": ["accuracy"]}),
        lambda f: settings(optimizer=keras.optimizers.SGD, metrics=["accuracy"]),
    ),
    "a teacher with nothing alike": Remedy(
        ModelError,
        "name the pairs yourself: layers={student layer: teacher layer}",
        lambda f: tfdistill.warm_start(net(5), net(6, 7)),
        lambda f: tfdistill.warm_start(net(5), net(6, 7), layers={"hidden_0": "hidden_0"}),
    ),
    # chains, initialization, backup
    "one optimizer for several trainings": Remedy(
        ConfigurationError,
        "for example optimizer=lambda: keras.optimizers.Adam(1e-3)",
        lambda f: settings(optimizer=keras.optimizers.Adam(1e-3)),
        lambda f: settings(optimizer=lambda: keras.optimizers.Adam(1e-3)),
    ),
    "the average of other architectures": Remedy(ModelError, 'how="distill"', lambda f: averaged("average"), lambda f: averaged("distill")),
    "a warm start of a wrapped model": Remedy(
        ModelError,
        "warm start before a compression step wraps the model",
        lambda f: tfdistill.warm_start(tfdistill.adopt(tfdistill.to_tf_keras(net(4))), net(6)),
        lambda f: tfdistill.warm_start(net(4), net(6)),
    ),
    "a warm start without weights": Remedy(
        ModelError,
        "call it once on a batch of inputs",
        lambda f: tfdistill.warm_start(Unbuilt(), built(Unbuilt())),
        lambda f: tfdistill.warm_start(built(Unbuilt()), built(Unbuilt())),
    ),
    "a backup without weights": Remedy(
        ModelError,
        "call it once on a batch before fit",
        lambda f: backed_up(Unbuilt(), f),
        lambda f: backed_up(built(Unbuilt()), f),
    ),
}


LABELS = np.stack([i == Y for i in range(CLASSES)], axis=-1).astype("float32")


def keras_features(name):
    return keras.distillation.FeatureDistillation(teacher_layer_name=name, student_layer_name=name)


def sigmoids():
    return [keras.Sequential([net(4), L.Activation("sigmoid")], name=name) for name in ("teacher", "student")]


def with_bias(value, name="student"):
    model = net(4, name=name)
    model.get_layer("logits").bias.assign(np.where(np.arange(CLASSES) == CLASSES - 1, value, 0.0))
    return model


def with_masked_class():
    return with_bias(-1e9, "teacher")


def left_out(model):
    return keras.Model(model.input, model.output[:, :-1], name="teacher")


def late_net(name):
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(4, 8, name="late")(L.Conv2D(3, 3, padding="same", name="conv")(inputs))
    return keras.Model(inputs, L.Dense(CLASSES)(L.Flatten()(x)), name=name)


def padded(values):
    return masking.with_mask(tf.convert_to_tensor(values), tf.convert_to_tensor(np.arange(6)[None] < np.full((32, 1), 4)))


class Idle(Unbuilt):
    """Has a layer that it does not call."""

    def __init__(self):
        super().__init__()
        self.body, self.idle = L.Dense(4, name="body"), L.Dense(4, name="idle")
        self.idle.build((None, 8))

    def call(self, inputs):
        return self.layer(self.body(inputs))


def recurrent():
    inputs = keras.Input((6, 4))
    return keras.Model(inputs, L.RNN(L.GRUCell(4, name="cell"), name="rnn")(inputs))


def of_two_blocks():
    inputs = keras.Input((8,))
    blocks = [keras.Sequential([keras.Input((8,)), L.Dense(8, name="dense")], name=name) for name in ("left", "right")]
    return keras.Model(inputs, blocks[1](blocks[0](inputs)), name="teacher")


def first_columns(x):
    return x[:, :CLASSES]


def registered(folder):
    """A saved Distiller whose teacher is a function; another process has to import what registers that."""
    with keras.saving.CustomObjectScope({}):
        function = keras.saving.register_keras_serializable("remedies")(first_columns)
        compiled(CallableTeacher(function, output_shape=(CLASSES,))).save(folder / "distiller.keras")
    return folder / "distiller.keras"


def loaded(path, known):
    found = keras.saving.get_custom_objects()
    function = found.pop("remedies>first_columns")
    if known:
        keras.saving.register_keras_serializable("remedies")(function)
    return keras.saving.load_model(path)


def reported(reports):
    loss = {"a": SoftTargets(), "b": SoftTargets()}
    return fit(two_outputs("teacher"), two_outputs("student"), loss, share=0.0, y={"a": Y % 3, "b": Y % 4}, metrics=reports)


def right():
    return keras.metrics.SparseCategoricalAccuracy(name="right")


def softmaxes():
    return [keras.Sequential([net(4), L.Softmax()], name=name) for name in ("teacher", "student")]


def logarithm():
    return keras.Sequential([net(4), L.Activation("log_softmax")], name="teacher")


def with_lambda(folder):
    inputs = keras.Input((8,))
    keras.Model(inputs, L.Dense(CLASSES)(L.Lambda(lambda x: x * 2.0)(inputs))).save(folder / "code.keras")
    return folder / "code.keras"


def compiled(teacher):
    distiller = Distiller(teacher, net(4), SoftTargets())
    distiller.compile("sgd", CROSS_ENTROPY)
    return distiller


def backed_up(model, folder):
    model.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
    return model.fit(X, Y, verbose=0, shuffle=False, callbacks=[tfdistill.BackupAndRestore(folder / "backup")])


# Keras warns of one position, too.
@pytest.mark.filterwarnings(r"ignore:[\s\S]*You are using a softmax over axis")
@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_works(name, tmp_path):
    error, words, provoke, remedy = REMEDIES[name]
    with pytest.raises(error) as caught:
        provoke(tmp_path)
    require_said(words, caught.value)
    remedy(tmp_path)


def test_each_row_is_another_remedy():
    assert len({row.words for row in REMEDIES.values()}) >= 50
