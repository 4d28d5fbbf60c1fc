"""A training that is interrupted and goes on: the weights, the metrics and what other callbacks do are those of an uninterrupted one."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import Dropped, data, mlp

import tfdistill
from tfdistill import BackupAndRestore, Distiller
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import Hint, SoftTargets
from tfdistill.utils import files

N, BATCH, EPOCHS, STEPS = 44, 8, 3, 6
X, Y = data(N)


class Interrupted(BaseException):
    """What ends a run."""


class Interrupt(keras.callbacks.Callback):
    """Ends the run after a batch of an epoch, before or after what other callbacks do then; after the epoch if the batch is None."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if self.at == (epoch - 1, None):
            raise Interrupted

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Interrupted


class Batches(keras.utils.PyDataset):
    """A PyDataset that orders its elements anew at the end of every epoch, by its own generator."""

    def __init__(self, reorder=False, **kwargs):
        super().__init__(**kwargs)
        self.order, self.rng, self.reorder = np.arange(N), np.random.default_rng(5), reorder

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        part = self.order[index * BATCH : (index + 1) * BATCH]
        return X[part], Y[part]

    def on_epoch_end(self):
        if self.reorder:
            self.rng.shuffle(self.order)


def generator():
    rng = np.random.default_rng(1)
    while True:
        part = rng.integers(N, size=BATCH)
        yield X[part], Y[part]


def stream(shuffle=True):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return (dataset.shuffle(N, seed=3) if shuffle else dataset).batch(BATCH)


# Arguments of fit.
DATA = {
    "arrays, shuffled": lambda: dict(x=X, y=Y, batch_size=BATCH),
    "arrays in order": lambda: dict(x=X, y=Y, batch_size=BATCH, shuffle=False),
    "arrays with a validation split": lambda: dict(x=X, y=Y, batch_size=BATCH, validation_split=0.2),
    "a dataset that shuffles anew": lambda: dict(x=stream(), shuffle=False),
    "a dataset of unknown length": lambda: dict(x=stream().filter(lambda x, y: True), shuffle=False),
    "an endless dataset": lambda: dict(x=stream().repeat(), steps_per_epoch=5, shuffle=False),
    "a generator": lambda: dict(x=generator(), steps_per_epoch=5, shuffle=False),
    "a PyDataset, shuffled": lambda: dict(x=Batches(), shuffle=True),
    "a PyDataset with workers": lambda: dict(x=Batches(workers=2), shuffle=True),
    "a PyDataset that shuffles itself": lambda: dict(x=Batches(reorder=True), shuffle=False),
}
INTERRUPTIONS = [("epoch", 2, 3), ("epoch", 1, None), (2, 2, 4), (5, 1, 5), (STEPS, 2, 1)]


def net():
    layers = [keras.layers.Dense(6, activation="relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2), keras.layers.Dense(5)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], jit_compile=False)
    return model


def train(make, fit, callbacks=(), epochs=EPOCHS):
    """Trains from the same beginning, on data that `fit` makes; returns all that the training has made."""
    keras.utils.set_random_seed(11)
    model, fit = make(), fit()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")  # Keras says so of every dataset of unknown length
        history = model.fit(**fit, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)], history


@functools.cache
def uninterrupted(make, fit, others):
    return train(make, fit, others())


def assert_goes_on(make, fit, folder, interruption, others=list):
    """Trains without and with an interruption, and compares all variables and the history of the epochs that came after it."""
    freq, epoch, batch = interruption
    whole, history = uninterrupted(make, fit, others)
    with pytest.raises(Interrupted):
        train(make, fit, [BackupAndRestore(folder, freq), *others(), Interrupt(epoch, batch)])
    again, rest = train(make, fit, [BackupAndRestore(folder, freq), *others()])
    assert len(rest.epoch) < len(history.epoch), "it must go on, not begin anew"
    assert not folder.exists()
    assert len(whole) == len(again)
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for name, values in rest.history.items():
        assert values == history.history[name][-len(values) :], name


# One of each way in which data is found again; the others take longer than they tell.
FAST = ("arrays, shuffled", "a dataset that shuffles anew", "an endless dataset", "a PyDataset that shuffles itself")


@pytest.mark.parametrize("kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in DATA])
def test_it_goes_on_within_an_epoch(kind, tmp_path):
    assert_goes_on(net, DATA[kind], tmp_path / "backup", (2, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAST)
def test_it_goes_on_with_an_epoch(kind, tmp_path):
    assert_goes_on(net, DATA[kind], tmp_path / "backup", ("epoch", 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=str)
def test_it_goes_on_wherever_it_is_interrupted(interruption, tmp_path):
    assert_goes_on(net, DATA["arrays, shuffled"], tmp_path / "backup", interruption)


def several_steps():
    model = net()
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=2, metrics=["accuracy"], jit_compile=False
    )
    return model


def distiller():
    teacher, student = mlp(24, name="teacher"), Dropped()
    student(X)
    made = Distiller(teacher, student, [SoftTargets(4.0), Hint("hidden_0", "hidden")])
    made.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return made


class TwoOptimizers(keras.Model):
    """A model with an optimizer of its own, as adversarial models have."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(6, activation="relu"), keras.layers.Dense(5)
        self.second = keras.optimizers.SGD(0.1, momentum=0.9)
        self(X)
        self.second.build(self.head.trainable_variables)
        self.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        self.optimizer.build(self.hidden.trainable_variables)

    def call(self, x):
        return self.head(self.hidden(x))

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=batch[1], y_pred=self(batch[0]))
        first, second = self.hidden.trainable_variables, self.head.trainable_variables
        gradients = tape.gradient(loss, [*first, *second])
        self.optimizer.apply_gradients(zip(gradients[: len(first)], first, strict=True))
        self.second.apply_gradients(zip(gradients[len(first) :], second, strict=True))
        return {"loss": loss}


def half_precision():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, dtype="bfloat16"), keras.layers.Dense(5, dtype="float16")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


class DrawsGlobally(keras.layers.Layer):
    """Noise by Keras's generator of the process."""

    def call(self, x, training=None):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


def global_noise():
    model = keras.Sequential([keras.Input((8,)), DrawsGlobally(), keras.layers.Dense(5)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


MODELS = {
    "several steps in one execution": several_steps,
    "a Distiller": distiller,
    "two optimizers": TwoOptimizers,
    "half precision": half_precision,
    "Keras's global generator": global_noise,
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if "precision" in k or "global" in k else k for k in MODELS])
def test_any_model_goes_on(kind, tmp_path):
    assert_goes_on(MODELS[kind], DATA["arrays, shuffled"], tmp_path / "backup", (2, 2, 3))


class Cools(keras.callbacks.Callback):
    """Lowers the learning rate by what it has counted and seen, in attributes of several kinds."""

    count = 0

    def __init__(self):
        super().__init__()
        self.seen, self.sums = [], {"batches": np.zeros(2)}

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        self.sums["batches"] += batch

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((self.count, float(self.sums["batches"][1])))
        self.model.optimizer.learning_rate = 0.01 / (1 + 0.1 * sum(a + b for a, b in self.seen))


class Draws(keras.callbacks.Callback):
    """Draws from NumPy's generator of the process."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.01 * np.random.random()


MORE = {
    "EarlyStopping": lambda: [keras.callbacks.EarlyStopping("loss", min_delta=0.1, patience=2, restore_best_weights=True)],
    "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.2, patience=2)],
    "a schedule that follows the last rate": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.7 * rate)],
    "what a user's callback counts": lambda: [Cools()],
    "what a user's callback draws": lambda: [Draws()],
}


@pytest.mark.parametrize("interruption", [("epoch", 2, 2), pytest.param((2, 2, 4), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    "kind", [k if k in ("ReduceLROnPlateau", "what a user's callback counts") else pytest.param(k, marks=pytest.mark.slow) for k in MORE]
)
def test_what_other_callbacks_count_goes_on(kind, interruption, tmp_path):
    assert_goes_on(net, DATA["arrays in order"], tmp_path / "backup", interruption, MORE[kind])


@pytest.mark.slow
def test_a_checkpoint_callback_writes_what_it_would_have_written(tmp_path):
    def others(folder):
        return [keras.callbacks.ModelCheckpoint(str(folder / "{epoch}-{batch}.weights.h5"), save_freq=4, save_weights_only=True)]

    def weights(folder):
        model, found = net(), {}
        model.optimizer.build(model.trainable_variables)
        for path in sorted(folder.iterdir()):
            model.load_weights(path)
            found[path.name] = model.get_weights()
        return found

    train(net, DATA["arrays, shuffled"], others(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(tmp_path / "b", 5), *others(tmp_path / "broken"), Interrupt(2, 1)])
    train(net, DATA["arrays, shuffled"], [BackupAndRestore(tmp_path / "b", 5), *others(tmp_path / "broken")])
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert list(whole) == list(broken)
    for name, values in whole.items():
        for a, b in zip(values, broken[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_that_are_skipped_are_not_told_to_others(tmp_path):
    heard = []
    listen = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: heard.append(batch))
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(tmp_path / "b", 2), Interrupt(1, 4)])
    train(net, DATA["arrays, shuffled"], [BackupAndRestore(tmp_path / "b", 2), listen], epochs=2)
    assert heard == [4, 5]


@pytest.mark.slow
def test_stopped_early_it_stays_stopped(tmp_path):
    """Interrupted between the end of the last epoch and the end of fit: no epoch comes on top."""

    class AtTheEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise Interrupted

    def stop():
        return keras.callbacks.EarlyStopping("loss", min_delta=10.0, patience=1, restore_best_weights=True)

    whole, history = train(net, DATA["arrays in order"], [stop()], epochs=9)
    with pytest.raises(Interrupted):
        train(net, DATA["arrays in order"], [AtTheEnd(), stop(), BackupAndRestore(tmp_path / "b")], epochs=9)
    again, rest = train(net, DATA["arrays in order"], [stop(), BackupAndRestore(tmp_path / "b")], epochs=9)
    assert len(history.epoch) == 2
    assert rest.epoch == []
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_later_fit_begins_where_it_is_told_to(tmp_path):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays in order"], [BackupAndRestore(tmp_path / "b"), Interrupt(2, 1)])
    keras.utils.set_random_seed(11)
    model = net()
    assert model.fit(X, Y, epochs=4, verbose=0, callbacks=[BackupAndRestore(tmp_path / "b")]).epoch == [2, 3]
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_settings_are_those_of_the_run_that_goes_on(tmp_path):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays in order"], [BackupAndRestore(tmp_path / "b"), keras.callbacks.EarlyStopping("loss"), Interrupt(2, 1)])
    stop = keras.callbacks.EarlyStopping("loss", patience=7, min_delta=0.5)
    train(net, DATA["arrays in order"], [stop, BackupAndRestore(tmp_path / "b", delete_checkpoint=False)], epochs=3)
    assert stop.patience == 7
    assert (tmp_path / "b" / "training_state.zip").exists()


@pytest.mark.slow
def test_a_callback_list_of_the_users_is_followed(tmp_path):
    def fit(*callbacks):
        keras.utils.set_random_seed(11)
        model = net()
        whole = keras.callbacks.CallbackList(list(callbacks), add_history=True, model=model, epochs=EPOCHS, steps=STEPS, verbose=0)
        model.fit(X, Y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=whole)
        return model.get_weights()

    whole = fit(keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.2, patience=2))
    with pytest.raises(Interrupted):
        fit(BackupAndRestore(tmp_path / "b", 2), keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.2, patience=2), Interrupt(2, 4))
    again = fit(BackupAndRestore(tmp_path / "b", 2), keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.2, patience=2))
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_of_the_users_is_removed(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    left = folder / ".tfdistill-abcdefgh"  # of a run that was killed while it wrote
    left.mkdir()
    (left / files._LOCK).touch()
    (left / "training_state.zip").write_text("half")
    train(net, DATA["arrays in order"], [BackupAndRestore(folder, double_checkpoint=True)], epochs=2)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    train(net, DATA["arrays in order"], [BackupAndRestore(empty)], epochs=1)
    assert empty.is_dir()


def unseeded(folder):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(folder, 2), Interrupt(1, 3)])
    tf.random.set_seed(None)
    net().fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[BackupAndRestore(folder, 2)])


def test_an_order_that_no_seed_decides_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"some samples come twice.*keras\.utils\.set_random_seed"):
        unseeded(tmp_path / "b")


def other_batches(folder):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(folder, 2), Interrupt(1, 4)])
    train(net, lambda: dict(x=X, y=Y, batch_size=16), [BackupAndRestore(folder, 2)])


def other_executions(folder):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(folder, 3), Interrupt(1, 3)])
    train(several_steps, DATA["arrays, shuffled"], [BackupAndRestore(folder, 2)])


def a_folder_of_keras(folder):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [keras.callbacks.BackupAndRestore(folder), Interrupt(1, 3)])
    train(net, DATA["arrays, shuffled"], [BackupAndRestore(folder)])


def a_loop_of_ones_own(folder):
    with pytest.raises(Interrupted):
        train(net, DATA["arrays, shuffled"], [BackupAndRestore(folder, 2), Interrupt(1, 3)])
    callback = BackupAndRestore(folder, 2)
    callback.set_model(net())
    callback.on_train_begin()


def an_unbuilt_model(folder):
    model = keras.Sequential([keras.layers.Dense(5)])
    model.compile("sgd", "mse")
    model.fit(X, X[:, :5], verbose=0, callbacks=[BackupAndRestore(folder)])


def a_file_as_folder(folder):
    folder.write_text("mine")
    train(net, DATA["arrays in order"], [BackupAndRestore(folder)])


REFUSED = {
    "another number of batches": (other_batches, ConfigurationError, "after batch 4 of 6 .* now an epoch has 3 batches"),
    "another number of steps in an execution": (other_executions, ConfigurationError, "after batch 3 of 6 .* 2 to an execution"),
    "a folder of Keras's callback": (a_folder_of_keras, ConfigurationError, "holds a backup of keras.callbacks.BackupAndRestore"),
    "a loop of one's own": (a_loop_of_ones_own, ConfigurationError, "not keras.Model.fit"),
    "an unbuilt model": (an_unbuilt_model, ModelError, "is not built"),
    "a file as folder": (a_file_as_folder, ConfigurationError, "cannot be written"),
    "no folder": (lambda folder: BackupAndRestore(""), ConfigurationError, "Empty"),
    "half a batch": (lambda folder: BackupAndRestore(folder, 0.5), ConfigurationError, "Invalid value"),
    "no batch": (lambda folder: BackupAndRestore(folder, 0), ConfigurationError, "Invalid value"),
    "never": (lambda folder: BackupAndRestore(folder, False), ConfigurationError, "Invalid value"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_on_is_refused(case, tmp_path):
    act, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        act(tmp_path / "b")


def test_it_is_public():
    assert tfdistill.BackupAndRestore is BackupAndRestore
    assert issubclass(BackupAndRestore, keras.callbacks.Callback)
