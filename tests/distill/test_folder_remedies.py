"""What errors about caches, backups, teachers from elsewhere and non-finite numbers say to do is done here, and works."""

import functools
import shutil
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from remedies_of_source import Row, check
from small import CLASSES, data, mlp

import tfdistill
from tfdistill import BackupAndRestore, CacheOptions, Distiller, RemoteTeacher
from tfdistill.distill import RetryPolicy, SavedModelTeacher, SoftTargetCache
from tfdistill.distill.cache import manifest
from tfdistill.distill.cache.folder import remove_cache
from tfdistill.distill.cache.lock import only_writer
from tfdistill.errors import BudgetExceededError
from tfdistill.losses import SoftTargets

X, Y = data(48)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
L = keras.layers


@functools.cache
def net():
    return mlp(6, name="teacher")


def made(folder, x=X, teacher=None, name="cache", **options):
    options = CacheOptions(**{"batch_size": 16, "shard_elements": 16, **options})
    return tfdistill.soft_targets(teacher or net(), x, folder / name, options=options)


def joined(folder, x=X, name="cache"):
    return list(SoftTargetCache(folder / name).join(x).as_numpy_iterator())


def flipped(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])


def damaged(folder, name="shard-00001.tfrecord"):
    """A cache with a damaged file; a copy of the file lies beside it."""
    made(folder)
    shutil.copy(folder / "cache" / name, folder / "copy")
    flipped(folder / "cache" / name)
    return joined(folder)


def copy_brought_back(folder, name="shard-00001.tfrecord"):
    shutil.copy(folder / "copy", folder / "cache" / name)
    joined(folder)
    made(folder, name="another")
    joined(folder, name="another")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16]


def damaged_while_it_is_read(folder):
    batches = made(folder, Batches()).join(Batches())
    shutil.copy(folder / "cache/shard-00001.tfrecord", folder / "copy")
    flipped(folder / "cache/shard-00001.tfrecord")
    return batches[1]


def labelled_again(folder):
    shutil.copy(folder / "copy", folder / "cache/shard-00001.tfrecord")
    SoftTargetCache(folder / "cache").join(Batches())[1]
    remove_cache(folder / "cache")
    shutil.rmtree(folder / "cache")
    made(folder, Batches()).join(Batches())[1]


def of_another_format(folder):
    cache = made(folder)
    settings = cache.manifest.settings.to_dict() | {"format": 3}
    document = manifest.Manifest.from_dict(cache.manifest.to_dict() | {"settings": settings})
    manifest.save_signed(document, folder / "cache/manifest.json")
    return SoftTargetCache(folder / "cache")


def linked(folder):
    made(folder)
    (folder / "cache/shard-00001.tfrecord").rename(folder / "elsewhere")
    (folder / "cache/shard-00001.tfrecord").symlink_to(folder / "elsewhere")
    return joined(folder)


def in_place_of_the_link(folder):
    (folder / "cache/shard-00001.tfrecord").unlink()
    (folder / "elsewhere").rename(folder / "cache/shard-00001.tfrecord")
    joined(folder)


def beside_my_file(folder):
    (folder / "mine.txt").write_text("mine")
    return tfdistill.soft_targets(net(), X, folder)


def while_another_writes(folder):
    (folder / "cache").mkdir()
    with only_writer(folder / "cache"):
        return made(folder)


def no_lock(folder):
    def diary():
        (folder / "cache/.lock").unlink()
        (folder / "cache/.lock").write_text("my diary")
        return labelled_by(doubled, folder)

    return unfinished(folder, diary)


def on_a_full_disk(folder, **options):
    usage = shutil.disk_usage(folder)._replace(free=1500)
    with unittest.mock.patch("shutil.disk_usage", return_value=usage):
        return made(folder, **options)


def noisy(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed)


def holed(values):
    values = values.copy()
    values[3, 2] = np.nan
    return values


def labelled_by(function, folder, x=X, **policy):
    return made(folder, x, RemoteTeacher(function, "wire-1", RetryPolicy(wait_seconds=0.0, **policy)))


def doubled(x):
    return 2 * x[:, :CLASSES]


def out_of_budget(folder):
    return labelled_by(doubled, folder, budget=1)


def unfinished(folder, then):
    with pytest.raises(BudgetExceededError):
        labelled_by(doubled, folder, budget=2)
    return then()


def gone(x):
    raise ConnectionError("gone")


def ray_labelled(folder, **options):
    net().save(folder / "teacher.keras")
    made(folder, teacher=keras.saving.load_model(folder / "teacher.keras"))
    options = CacheOptions(**options) if options else None
    return tfdistill.label_with_ray(folder / "teacher.keras", lambda: X, folder / "cache", num_shards=3, options=options)


CACHES = {
    "a folder with files of mine": Row(
        "choose a folder inside it: '", beside_my_file, lambda f: tfdistill.soft_targets(net(), X, f / "soft_targets")
    ),
    "damaged while it is read": Row("delete the folder and label again, or bring a copy back", damaged_while_it_is_read, labelled_again),
    "a damaged shard": Row("label again into another folder, or bring a copy of the file back", damaged, copy_brought_back),
    "a damaged manifest": Row(
        "label again into another folder, or bring a copy of the file back",
        lambda f: damaged(f, "manifest.json"),
        lambda f: copy_brought_back(f, "manifest.json"),
    ),
    "an overflow": Row(
        "store the outputs with dtype='bfloat16' or 'float32'",
        lambda f: made(f, X * 1e6),
        lambda f: (made(f, X * 1e6, name="a", dtype="bfloat16"), made(f, X * 1e6, name="b", dtype="float32")),
    ),
    "a teacher that answers NaN": Row(
        "look at the teacher's weights and inputs", lambda f: labelled_by(lambda x: holed(doubled(x)), f), lambda f: labelled_by(doubled, f)
    ),
    "another writer": Row(
        "wait for it to end, or choose another folder", while_another_writes, lambda f: (made(f), made(f, name="another"))
    ),
    "a lock that is none": Row("choose another folder", no_lock, lambda f: made(f, name="another")),
    "the cache of other settings": Row(
        "choose another folder", lambda f: (made(f), made(f, dtype="float32")), lambda f: made(f, name="another", dtype="float32")
    ),
    "another format": Row(
        "label again with this version of the library", of_another_format, lambda f: (made(f, name="a"), joined(f, name="a"))
    ),
    "a link": Row("put the file itself in the place of the link", linked, in_place_of_the_link),
    "options as a dict": Row(
        "options=tfdistill.CacheOptions(...)",
        lambda f: tfdistill.soft_targets(net(), X, f / "cache", {"batch_size": 16}),
        lambda f: tfdistill.soft_targets(net(), X, f / "cache", options=CacheOptions(batch_size=16)),
    ),
    "a full disk": Row(
        "keep fewer layers or views, use top_k, or another disk",
        lambda f: on_a_full_disk(f, layers=["hidden_0"], dtype="float32"),
        lambda f: (on_a_full_disk(f, name="a", top_k=1, dtype="float16"), on_a_full_disk(f, name="b", dtype="float16")),
    ),
    "layers of a black box": Row(
        "leave layers out",
        lambda f: made(f, teacher=RemoteTeacher(doubled, "wire-1"), layers=["hidden_0"]),
        lambda f: made(f, teacher=RemoteTeacher(doubled, "wire-1")),
    ),
    "NaN in the data": Row(
        "clean the data, and what augment makes of it", lambda f: made(f, holed(X)), lambda f: made(f, np.nan_to_num(holed(X)))
    ),
    "NaN that augmentation makes": Row(
        "clean the data, and what augment makes of it",
        lambda f: made(f, augment=lambda x, seed: tf.where(x == X[3], np.nan, x)),
        lambda f: made(f, augment=lambda x, seed: tf.where(x == X[3], 0.0, x)),
    ),
    "two sizes of shards": Row(
        "leave shard_elements out of options, or use soft_targets",
        lambda f: ray_labelled(f, shard_elements=16),
        lambda f: (ray_labelled(f, batch_size=16), made(f, name="another", shard_elements=16)),
    ),
    "views without their function": Row(
        "SoftTargetCache(directory, augment=the_function).join(...)",
        lambda f: (made(f, augment=noisy, views=2), SoftTargetCache(f / "cache").join(X)),
        lambda f: SoftTargetCache(f / "cache", augment=noisy).join(X),
    ),
    "an unfinished cache": Row(
        "run the call that began it again: it continues",
        lambda f: unfinished(f, lambda: SoftTargetCache(f / "cache")),
        lambda f: (labelled_by(doubled, f), joined(f)),
    ),
    "a generator": Row(
        "tf.data.Dataset.from_generator makes a dataset of a generator function",
        lambda f: made(f, (x for x in X)),
        lambda f: made(f, tf.data.Dataset.from_generator(lambda: iter(X), output_signature=tf.TensorSpec((8,))).batch(16)),
    ),
    "a dataset that ends early": Row(
        "choose another folder, or give the dataset that the labelling began with",
        lambda f: unfinished(f, lambda: labelled_by(doubled, f, X[:16])),
        lambda f: (labelled_by(doubled, f), made(f, X[:16], name="another")),
    ),
    "another dataset": Row(
        "shuffle after joining, not before; or label this dataset into another folder",
        lambda f: made(f).join(X[::-1]),
        lambda f: (list(SoftTargetCache(f / "cache").join(X, shuffle=True)), made(f, X[::-1], name="another").join(X[::-1])),
    ),
    "a function": Row(
        "identity='its name and version')",
        lambda f: tfdistill.soft_targets(np.tanh, X, f / "cache"),
        lambda f: tfdistill.soft_targets(RemoteTeacher(np.tanh, identity="tanh 1"), X, f / "cache"),
    ),
    "a budget": Row(
        "run again with another RemoteTeacher of this identity to go on from here",
        out_of_budget,
        lambda f: (labelled_by(doubled, f, budget=2), joined(f)),
    ),
    "a teacher that keeps failing": Row(
        "run again to go on from here: finished shards are kept",
        lambda f: labelled_by(gone, f, retries=1),
        lambda f: (labelled_by(doubled, f), joined(f)),
    ),
}


class Ended(BaseException):
    """What ends a training."""


class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise Ended


def trained(folder, callback=BackupAndRestore, often=1, end=False, batch_size=8, optimizer="adam", **settings):
    keras.utils.set_random_seed(0)
    model = mlp(4)
    model.compile(optimizer, CROSS_ENTROPY, run_eagerly=True)
    callbacks = [callback(folder / "backup", often), *([End()] if end else [])]
    return model.fit(X, Y, batch_size=batch_size, epochs=2, verbose=0, callbacks=callbacks, **settings)


def ended(folder, **settings):
    with pytest.raises(Ended):
        trained(folder, end=True, **settings)


def in_a_loop(folder, often):
    with pytest.raises(Ended):
        trained(folder, often=often, end=True)
    model = mlp(4)
    model.compile("adam", CROSS_ENTROPY)
    callback = BackupAndRestore(folder / "backup", often)
    callback.set_model(model)
    callback.on_train_begin()


def anew(folder, **settings):
    """Both ways of a remedy: the file is moved away, or another folder is given."""
    (file,) = [path for path in (folder / "backup").iterdir() if path.is_file()]
    file.rename(folder / "moved")
    trained(folder, **settings)
    (folder / "another").mkdir()
    trained(folder / "another", **settings)


def cut_in_half(folder):
    ended(folder)
    (file,) = [path for path in (folder / "backup").iterdir() if path.is_file()]
    file.write_bytes(file.read_bytes()[:200])
    return trained(folder)


def as_before(folder):
    trained(folder)
    (folder / "once more").mkdir()
    ended(folder / "once more")
    (folder / "once more/backup" / next(p.name for p in (folder / "once more/backup").iterdir())).rename(folder / "moved")
    trained(folder / "once more", batch_size=16)


def ended_by_keras(folder):
    keras_callback = keras.callbacks.BackupAndRestore
    trained(folder / "another")
    trained(folder, keras_callback, "epoch")


BACKUPS = {
    "other batches": Row(
        "call fit and compile as before, or move the file away to begin the training anew",
        lambda f: (ended(f), trained(f, batch_size=16)),
        as_before,
    ),
    "a folder of Keras's callback": Row(
        "give another backup_dir, or end that training with Keras's callback",
        lambda f: (ended(f, callback=keras.callbacks.BackupAndRestore, often=1), trained(f)),
        ended_by_keras,
    ),
    "a loop of one's own": Row("save with save_freq='epoch'", lambda f: in_a_loop(f, 1), lambda f: in_a_loop(f / "another", "epoch")),
    "half a file": Row("move it away to begin the training anew, or give another backup_dir", cut_in_half, anew),
    "another optimizer": Row(
        "move the file away to begin the training anew, or give another backup_dir",
        lambda f: (ended(f), trained(f, optimizer="sgd")),
        lambda f: anew(f, optimizer="sgd"),
    ),
}


def distiller(teacher):
    made = Distiller(teacher, mlp(4, name="student"), SoftTargets(2.0))
    made.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
    return made


def taught(teacher, x=X, y=Y, **arguments):
    distiller(teacher).fit(x, y, verbose=0, **arguments)


def saved_with_a_file(folder):
    net().save(folder / "teacher.keras")
    made = distiller(folder / "teacher.keras")
    made.save(folder / "distiller.keras")
    (folder / "teacher.keras").rename(folder / "moved.keras")
    return keras.saving.load_model(folder / "distiller.keras")


def put_back(folder):
    made = Distiller(folder / "moved.keras", mlp(4, name="student"), SoftTargets(2.0))
    made.load_weights(folder / "distiller.keras")
    (folder / "moved.keras").rename(folder / "teacher.keras")
    keras.saving.load_model(folder / "distiller.keras")


def exported(folder):
    net().export(folder / "saved", verbose=False)
    return folder / "saved"


def of_a_saved_model(folder, **arguments):
    distiller(SavedModelTeacher(exported(folder))).save(folder / "distiller.keras")
    return keras.saving.load_model(folder / "distiller.keras", **arguments)


def cut_teacher(folder):
    net().save(folder / "whole.keras")
    (folder / "teacher.keras").write_bytes((folder / "whole.keras").read_bytes()[:500])
    with keras.src.saving.serialization_lib.SafeModeScope(False):
        return distiller(folder / "teacher.keras")


def with_weights(value):
    model = mlp(6, name="teacher")
    weights = model.get_weights()
    weights[-1][0] = value
    model.set_weights(weights)
    return model


def logarithm(of, hidden=False):
    """A teacher whose logits are the logarithms of its inputs, or of what `of` makes of them; a ReLU behind it turns NaN into 0."""
    inputs = keras.Input((8,))
    x = keras.ops.log(of(inputs))[:, :CLASSES]
    return keras.Model(inputs, L.ReLU()(x) if hidden else x, name="teacher")


def with_one_below(values):
    """Positive inputs, but for one in the last batch."""
    values = np.abs(values) + 1.0
    values[-1, 2] = -1.0
    return values


def fast(rate=1e-2, **settings):
    made = Distiller(net(), mlp(4, name="student"), SoftTargets(2.0))
    made.compile(keras.optimizers.SGD(rate, **settings), CROSS_ENTROPY, run_eagerly=True)
    made.fit(X, Y, verbose=0, epochs=3)


TEACHERS = {
    "a file that was moved": Row("put it back; or make the Distiller anew, with the new path of the teacher", saved_with_a_file, put_back),
    "a SavedModel that is not there": Row(
        "give its new path",
        lambda f: (exported(f), SavedModelTeacher(f / "moved")),
        lambda f: taught(SavedModelTeacher(f / "saved")),
    ),
    "a program in a saved Distiller": Row(
        "if you trust both, keras.saving.load_model(path, safe_mode=False)",
        of_a_saved_model,
        lambda f: of_a_saved_model(f, safe_mode=False),
    ),
    "a signature": Row(
        "SavedModelTeacher(path, signature=...). There are: 's",
        lambda f: SavedModelTeacher(exported(f), signature="x"),
        lambda f: SavedModelTeacher(exported(f), signature="serving_default")(X),
    ),
    "a weight that is infinite": Row(
        "load earlier weights; if this is a mask, write it with a large finite number such as -1e9",
        lambda f: made(f, teacher=with_weights(np.inf)),
        lambda f: made(f, teacher=with_weights(0.5)),
    ),
    "a mask of infinity": Row(
        "load earlier weights; if this is a mask, write it with a large finite number such as -1e9",
        lambda f: made(f, teacher=with_weights(-np.inf)),
        lambda f: made(f, teacher=with_weights(-1e9), dtype="float32"),
    ),
    "a first answer of NaN": Row(
        "look at its weights and its inputs", lambda f: taught(with_weights(np.nan)), lambda f: taught(with_weights(0.0))
    ),
    "NaN that a ReLU hides": Row(
        "look at the teacher's layers for what they do with this element: a logarithm, a division, an overflow",
        lambda f: made(f, X, logarithm(lambda x: x, hidden=True)),
        lambda f: made(f, X, logarithm(lambda x: keras.ops.abs(x) + 1.0, hidden=True)),
    ),
    "a later answer of NaN": Row(
        "look at the batch, at the teacher's weights, and at overflow if the teacher computes in float16",
        lambda f: taught(logarithm(lambda x: x), with_one_below(X), shuffle=False),
        lambda f: (
            taught(logarithm(lambda x: x), np.abs(with_one_below(X)), shuffle=False),
            taught(logarithm(lambda x: keras.ops.abs(x) + 1.0), with_one_below(X), shuffle=False),
        ),
    ),
    "a rate that is too high": Row(
        "lower the learning rate or clip gradients (clipnorm)",
        lambda f: fast(1e30),
        lambda f: (fast(), fast(clipnorm=1.0)),
    ),
    "NaN in the first inputs": Row(
        "clean the data, or mask such samples with sample_weight=0 and a finite value",
        lambda f: taught(net(), holed(X)),
        lambda f: (
            taught(net(), np.delete(X, 3, axis=0), np.delete(Y, 3)),
            taught(net(), np.nan_to_num(holed(X)), sample_weight=np.isfinite(holed(X)).all(-1).astype("float32")),
        ),
    ),
    "NaN in a later batch": Row(
        "look at the inputs of that batch: they are the one thing that both models share; clean the data",
        lambda f: taught(net(), holed(X[::-1])[::-1], shuffle=False),
        lambda f: taught(net(), np.nan_to_num(holed(X[::-1])[::-1]), shuffle=False),
    ),
}


ROWS = {**CACHES, **BACKUPS, **TEACHERS}


def test_no_two_rows_have_one_name():
    assert len(ROWS) == len(CACHES) + len(BACKUPS) + len(TEACHERS)


@pytest.mark.parametrize("name", ROWS)
def test_the_remedy_works(name, tmp_path):
    check(ROWS[name], tmp_path)
