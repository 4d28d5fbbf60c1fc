"""Trains a teacher, a student from scratch, and a distilled, pruned and quantized student; exports two files, verifies and times them."""

import dataclasses
import pathlib
import time
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfdistill.benchmarking import Cpu
from tfdistill.benchmarking.run import benchmark
from tfdistill.compress import Prune, QuantizeAware, rebuild
from tfdistill.demo import datasets, models
from tfdistill.distill import Distiller
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.folder import remove_cache
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.pipeline.road import under_teacher
from tfdistill.report.plots import summary_picture
from tfdistill.report.summary import Exported, Stage, Summary, Timed
from tfdistill.tflite import export_tflite
from tfdistill.utils.files import writable_folder, write_whole
from tfdistill.utils.progress import progress

BATCH = 32
SPARSITY = 0.5
# Steps of these small models take less time than the call of one.
STEPS_PER_EXECUTION = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """Epochs and learning rates of the stages for one data set."""

    teacher_epochs: int
    student_epochs: int
    pruning_epochs: int
    quantizing_epochs: int
    temperature: float = 4.0
    student_loss_weight: float = 0.1
    rate: float = 2e-3
    fine_tuning_rate: float = 5e-4

    def scaled(self, factor):
        """Returns the plan with all numbers of epochs multiplied by `factor`, each at least one."""
        names = [f.name for f in dataclasses.fields(self) if f.name.endswith("_epochs")]
        return dataclasses.replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in names})


PLANS = {
    "digits": Plan(teacher_epochs=12, student_epochs=20, pruning_epochs=8, quantizing_epochs=6),
    "fashion-mnist": Plan(teacher_epochs=5, student_epochs=5, pruning_epochs=2, quantizing_epochs=1),
}


def cross_entropy():
    """Returns the loss on class indices, for models that end in logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def optimizer(rate, epochs, samples):
    """Returns Adam with a learning rate that falls to zero over the training, along a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, epochs * steps_per_epoch(samples)))


def steps_per_epoch(samples):
    """Returns the number of batches of one epoch; the last one may be smaller."""
    return -(-samples // BATCH)


def accuracy(model, x, y):
    """Returns the share (0 to 1) of samples whose largest logit is the label's."""
    # Called directly, because `predict` would be traced once for each of the models.
    batches = range(0, len(x), 500)
    logits = [keras.ops.convert_to_numpy(model(x[i : i + 500], training=False)) for i in batches]
    return float(np.mean(np.concatenate(logits).argmax(-1) == y))


class _Advance(keras.callbacks.Callback):
    def __init__(self, advance):
        super().__init__()
        self.advance = advance

    def on_epoch_begin(self, epoch, logs=None):
        self.done = 0

    def on_train_batch_end(self, batch, logs=None):
        self.advance(batch + 1 - self.done)
        self.done = batch + 1


class Demo:
    """One run of the demo, stage by stage.

    Args:
        data: `datasets.Images`.
        plan: `Plan`.
        seed: Seed of every stage, so that the student has the same initial weights and order of batches with and without a teacher.
        log_fn: Function that is called with a line of text after each stage.
        teacher: Function of (shape, classes) that makes the teacher.
        student: Function of (shape, classes) that makes the student.
    """

    def __init__(self, data, plan, seed, log_fn=print, teacher=models.teacher, student=models.student):
        self.data, self.plan, self.seed, self.log_fn = data, plan, seed, log_fn
        self.build_teacher, self.build_student = teacher, student
        self.stages = []
        self.cache = None

    @property
    def training_data(self):
        return self.data.x_train, self.data.y_train

    def fit(self, name, model, rate, epochs, callbacks=(), dataset=None):
        """Trains a model, or a `Distiller`, with a progress bar; returns the seconds it took.

        Args:
            name: Name of the stage.
            model: The model or `Distiller`.
            rate: Learning rate at the start.
            epochs: Number of epochs.
            callbacks: Keras callbacks.
            dataset: The training data joined with the cache of teacher outputs, for a `Distiller` that learns from the cache; None trains
                on `training_data`.
        """
        samples = len(self.data.x_train)
        keras.utils.set_random_seed(self.seed)
        model.compile(optimizer(rate, epochs, samples), loss=cross_entropy(), steps_per_execution=STEPS_PER_EXECUTION)
        if dataset is None:
            arguments = {"x": self.data.x_train, "y": self.data.y_train, "batch_size": BATCH}
        else:
            arguments = {"x": dataset, "shuffle": False}
        began = time.monotonic()
        with progress(f"Training: {name}", total=epochs * steps_per_epoch(samples)) as advance:
            model.fit(**arguments, epochs=epochs, verbose=0, callbacks=[_Advance(advance), *callbacks])
        return time.monotonic() - began

    def record_stage(self, name, model, weights, seconds):
        """Adds a stage to the summary: the model's accuracy, and how many of the weights are not zero."""
        stage = Stage(
            name=name,
            accuracy=accuracy(model, self.data.x_test, self.data.y_test),
            parameters=int(sum(w.size for w in weights)),
            nonzero_parameters=int(sum(np.count_nonzero(w) for w in weights)),
            seconds=seconds,
        )
        self.stages.append(stage)
        self.log_fn(
            f"{name:>10}: {100 * stage.accuracy:5.1f} %, {stage.nonzero_parameters:,} of {stage.parameters:,} weights, {seconds:.1f} s"
        )

    def initialized(self, build):
        """Makes a model under the seed."""
        keras.utils.set_random_seed(self.seed)
        return build(self.data.shape, self.data.classes)

    def distiller(self, teacher, student):
        return Distiller(teacher, student, SoftTargets(self.plan.temperature), student_loss_weight=self.plan.student_loss_weight)

    def cache_teacher(self, folder):
        """Writes the teacher's outputs on the training data to a cache, from which the later stages learn."""
        if (folder / "manifest.json").exists():
            remove_cache(folder)  # written by an earlier run, with another teacher
        began = time.monotonic()
        self.cache = soft_targets(self.teacher, self.training_data, folder, options=CacheOptions(batch_size=BATCH))
        seconds = time.monotonic() - began
        epochs = self.plan.student_epochs + self.plan.pruning_epochs + self.plan.quantizing_epochs
        saved = epochs * self._seconds_of_one_pass() - seconds
        self.log_fn(
            f"The teacher's outputs are cached: {seconds:.1f} s, {self.cache.size_bytes / 1024:.0f} KiB. "
            f"Without the cache it would run in each of {epochs} epochs: about {saved:.1f} s saved."
        )

    def _seconds_of_one_pass(self):
        """Measures the time of the teacher's forward passes in one epoch."""
        predict = tf.function(lambda x: self.teacher(x, training=False))
        batches = list(tf.data.Dataset.from_tensor_slices(self.data.x_train).batch(BATCH, drop_remainder=True))
        predict(batches[0])
        began = time.monotonic()
        for batch in batches:
            predict(batch)
        return time.monotonic() - began

    def joined(self):
        """Returns the training data with the cached outputs of the teacher."""
        return self.cache.join(self.training_data, batch_size=BATCH, seed=self.seed)

    def distil(self, name, student, rate, epochs, callbacks=()):
        """Trains any kind of student on the cache, or on the teacher if there is no cache. Returns the seconds it took."""
        dataset = self.joined() if self.cache is not None else None
        teacher = self.teacher if self.cache is None else self.cache
        return self.fit(name, self.distiller(teacher, student), rate, epochs, callbacks, dataset)

    def train_teacher(self):
        self.teacher = self.initialized(self.build_teacher)
        seconds = self.fit("teacher", self.teacher, self.plan.rate, self.plan.teacher_epochs)
        self.record_stage("teacher", self.teacher, self.teacher.get_weights(), seconds)
        return self.teacher

    def train_scratch(self):
        scratch = self.initialized(self.build_student)
        seconds = self.fit("scratch", scratch, self.plan.rate, self.plan.student_epochs)
        self.record_stage("scratch", scratch, scratch.get_weights(), seconds)
        return scratch

    def train_with(self, name, make_distiller):
        """Trains a new student with `make_distiller(teacher, student)`, under the settings of the scratch student."""
        student = self.initialized(self.build_student)
        seconds = self.fit(name, make_distiller(self.teacher, student), self.plan.rate, self.plan.student_epochs)
        self.record_stage(name, student, student.get_weights(), seconds)
        return student

    def train_distilled(self):
        student = self.initialized(self.build_student)
        seconds = self.distil("distilled", student, self.plan.rate, self.plan.student_epochs)
        self.record_stage("distilled", student, student.get_weights(), seconds)
        return student

    def compress(self, path):
        """Distils a student, prunes it and trains it quantization-aware, all on the cache; exports and verifies an int8 file.

        Returns:
            The `Road`.
        """
        plan, samples = self.plan, len(self.data.x_train)
        student = self.initialized(self.build_student)

        def settings(rate, epochs):
            return ChainSettings(
                SoftTargets(plan.temperature),
                student_loss_weight=plan.student_loss_weight,
                optimizer=lambda: optimizer(rate, epochs, samples),
                loss=cross_entropy(),
                epochs=epochs,
                compile={"steps_per_execution": STEPS_PER_EXECUTION},
            )

        road = under_teacher(
            self.cache,
            student,
            [partial(Prune.for_training, sparsity=SPARSITY), QuantizeAware()],
            settings(plan.rate, plan.student_epochs),
            self.joined(),
            step_settings=[settings(plan.fine_tuning_rate, epochs) for epochs in (plan.pruning_epochs, plan.quantizing_epochs)],
            path=path,
            verify_on=(self.data.x_test, self.data.y_test),
        )
        for name, model, generation in zip(("distilled", "pruned", "quantized"), road.models, road.record.generations, strict=True):
            weights = [w for layer in rebuild.layers_by_name(model).values() for w in rebuild.effective_weights(layer)]
            self.record_stage(name, model, weights, generation.seconds)
        return road


def run_demo(dataset="digits", data=None, seed=0, out="runs/demo", epochs_scale=1.0, log_fn=print):
    """Runs the demo.

    Args:
        dataset: "digits" or "fashion-mnist".
        data: Folder of Fashion-MNIST's four files, or None.
        seed: Seed of the weights and of the order of batches.
        out: Folder of the results; created if it is missing.
        epochs_scale: Factor on all numbers of epochs, above 0.
        log_fn: Function that is called with lines of text on the progress.

    Returns:
        The `Summary`, which is also written to `out`.

    Raises:
        ConfigurationError: for an unwritable folder, an unknown data set, or a factor that is not above 0; before any training.
    """
    if not epochs_scale > 0:
        raise ConfigurationError(f"epochs_scale={epochs_scale}.", "a factor above 0")
    out = writable_folder(out)
    images = datasets.load(dataset, data)
    demo = Demo(images, PLANS[dataset].scaled(epochs_scale), seed, log_fn)

    teacher = demo.train_teacher()
    demo.cache_teacher(out / "soft_targets")
    scratch = demo.train_scratch()
    paths = {variant: out / f"student_{variant}.tflite" for variant in ("float32", "int8")}
    road = demo.compress(paths["int8"])
    pruned = road.models[1]
    for name, model in (("teacher", teacher), ("scratch", scratch), ("student", pruned)):
        with write_whole(out / f"{name}.keras") as temporary:
            model.save(temporary)

    exports, timings = [export_tflite(pruned, paths["float32"], verify_on=(images.x_test, images.y_test)), road.export], []
    for exported in exports:
        # As a phone or a board would run it: they have no AMX.
        timings.append(benchmark(exported.path, Cpu(threads=1, amx=False), variant=exported.variant))
        log_fn(
            f"{exported.variant:>10}: {exported.size_bytes / 1024:.1f} KiB, {100 * exported.accuracy:.1f} %, median {timings[-1].p50_ms:.3f} ms"
        )

    summary = Summary(
        dataset=dataset,
        seed=seed,
        host=fingerprint(),
        stages=tuple(demo.stages),
        exports=tuple(Exported.from_dict(_fields_of(Exported, record)) for record in exports),
        benchmarks=tuple(Timed.from_dict(_fields_of(Timed, record)) for record in timings),
    )
    summary.save(out / "summary.json")
    summary_picture(summary, pathlib.Path(out) / "summary.png")
    return summary


def _fields_of(kind, record):
    """Returns the fields of the class `kind` that a larger record has, with their values."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(kind)}
