"""Teacher, student from scratch, distilled, pruned and quantized student, two files, their check and their latency: one summary."""

import dataclasses
import pathlib
import time

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
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.report.plots import summary_picture
from tfdistill.report.summary import Exported, Stage, Summary, Timed
from tfdistill.tflite import export_tflite
from tfdistill.utils.files import writable_folder, write_whole
from tfdistill.utils.progress import progress

BATCH = 32
SPARSITY = 0.5


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
        """The same with all epochs multiplied, each at least one."""
        names = [f.name for f in dataclasses.fields(self) if f.name.endswith("_epochs")]
        return dataclasses.replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in names})


PLANS = {
    "digits": Plan(teacher_epochs=12, student_epochs=20, pruning_epochs=8, quantizing_epochs=6),
    "fashion-mnist": Plan(teacher_epochs=5, student_epochs=5, pruning_epochs=2, quantizing_epochs=1),
}


def cross_entropy():
    """The loss on class indices, for models that end in logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def optimizer(rate, epochs, samples):
    """Adam whose rate falls to zero over the training, along a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, epochs * steps_per_epoch(samples)))


def steps_per_epoch(samples):
    """Number of batches of one epoch, the last one possibly smaller."""
    return -(-samples // BATCH)


def accuracy(model, x, y):
    """Share of samples whose largest logit is the label's."""
    # Called directly: `predict` would be traced anew for each of the models.
    batches = range(0, len(x), 500)
    logits = [keras.ops.convert_to_numpy(model(x[i : i + 500], training=False)) for i in batches]
    return float(np.mean(np.concatenate(logits).argmax(-1) == y))


class _Advance(keras.callbacks.Callback):
    def __init__(self, advance):
        super().__init__()
        self.advance = advance

    def on_train_batch_end(self, batch, logs=None):
        self.advance()


class Demo:
    """One run, stage after stage.

    Args:
        data: `datasets.Images`.
        plan: `Plan`.
        seed: Every stage begins with this seed, so the student has the same initial weights and order of batches with and without a teacher.
        say: Function that is given a line of text after each stage.
        teacher: Function of (shape, classes) that makes the teacher.
        student: The same for the student.
    """

    def __init__(self, data, plan, seed, say=print, teacher=models.teacher, student=models.student):
        self.data, self.plan, self.seed, self.say = data, plan, seed, say
        self.build_teacher, self.build_student = teacher, student
        self.stages = []
        self.cache = None

    @property
    def train(self):
        return self.data.x_train, self.data.y_train

    def fit(self, name, model, rate, epochs, callbacks=(), joined=None):
        """Trains a model, or a `Distiller`, under a progress bar; returns the seconds it took.

        Args:
            name: Name of the stage.
            model: What to train.
            rate: Learning rate at the start.
            epochs: Number of epochs.
            callbacks: Keras callbacks.
            joined: The training data joined with the teacher's kept answers, for a `Distiller` that is taught by them.
        """
        samples = len(self.data.x_train)
        keras.utils.set_random_seed(self.seed)
        model.compile(optimizer(rate, epochs, samples), loss=cross_entropy())
        feed = {"x": joined, "shuffle": False} if joined is not None else {"x": self.train[0], "y": self.train[1], "batch_size": BATCH}
        began = time.monotonic()
        with progress(f"Training: {name}", total=epochs * steps_per_epoch(samples)) as advance:
            model.fit(**feed, epochs=epochs, verbose=0, callbacks=[_Advance(advance), *callbacks])
        return time.monotonic() - began

    def note(self, name, model, weights, seconds):
        """Adds a stage to the summary: the model's accuracy, and how many of the weights are not zero."""
        stage = Stage(
            name=name,
            accuracy=accuracy(model, self.data.x_test, self.data.y_test),
            parameters=int(sum(w.size for w in weights)),
            nonzero_parameters=int(sum(np.count_nonzero(w) for w in weights)),
            seconds=seconds,
        )
        self.stages.append(stage)
        self.say(
            f"{name:>10}: {100 * stage.accuracy:5.1f} %, {stage.nonzero_parameters:,} of {stage.parameters:,} weights, {seconds:.1f} s"
        )

    def fresh(self, build):
        keras.utils.set_random_seed(self.seed)
        return build(self.data.shape, self.data.classes)

    def distiller(self, teacher, student):
        return Distiller(teacher, student, SoftTargets(self.plan.temperature), student_loss_weight=self.plan.student_loss_weight)

    def keep_answers(self, folder):
        """Lets the teacher run once over the training data; from then on its kept answers teach, and it does not run again."""
        if (folder / "manifest.json").exists():
            remove_cache(folder)  # of an earlier run, whose teacher was another
        began = time.monotonic()
        self.cache = soft_targets(self.teacher, self.train, folder, options=CacheOptions(batch_size=BATCH))
        asking = time.monotonic() - began
        epochs = self.plan.student_epochs + self.plan.pruning_epochs + self.plan.quantizing_epochs
        saved = epochs * self._seconds_of_one_pass() - asking
        self.say(
            f"The teacher answered once, in {asking:.1f} s, {self.cache.size_bytes / 1024:.0f} KiB. "
            f"Beside the student it would run in each of {epochs} epochs: about {saved:.1f} s saved."
        )

    def _seconds_of_one_pass(self):
        """Measures what an epoch beside the student would pay for the teacher."""
        ask = tf.function(lambda x: self.teacher(x, training=False))
        batches = list(tf.data.Dataset.from_tensor_slices(self.train[0]).batch(BATCH, drop_remainder=True))
        ask(batches[0])
        began = time.monotonic()
        for batch in batches:
            ask(batch)
        return time.monotonic() - began

    def distil(self, name, student, rate, epochs, callbacks=()):
        """Trains a student, of whatever kind, under the teacher: by its kept answers if there are any."""
        joined = self.cache.join(self.train, batch_size=BATCH, seed=self.seed) if self.cache is not None else None
        teacher = self.teacher if self.cache is None else self.cache
        return self.fit(name, self.distiller(teacher, student), rate, epochs, callbacks, joined)

    def train_teacher(self):
        self.teacher = self.fresh(self.build_teacher)
        seconds = self.fit("teacher", self.teacher, self.plan.rate, self.plan.teacher_epochs)
        self.note("teacher", self.teacher, self.teacher.get_weights(), seconds)
        return self.teacher

    def train_scratch(self):
        scratch = self.fresh(self.build_student)
        seconds = self.fit("scratch", scratch, self.plan.rate, self.plan.student_epochs)
        self.note("scratch", scratch, scratch.get_weights(), seconds)
        return scratch

    def train_taught(self, name, way):
        """Trains a fresh student with the distiller that `way(teacher, student)` makes, under the settings of the scratch student."""
        student = self.fresh(self.build_student)
        seconds = self.fit(name, way(self.teacher, student), self.plan.rate, self.plan.student_epochs)
        self.note(name, student, student.get_weights(), seconds)
        return student

    def train_distilled(self):
        student = self.fresh(self.build_student)
        seconds = self.distil("distilled", student, self.plan.rate, self.plan.student_epochs)
        self.note("distilled", student, student.get_weights(), seconds)
        return student

    def prune(self, student):
        """Prunes the student, the teacher still on; returns the step and the plain Keras model."""
        epochs = self.plan.pruning_epochs
        step = Prune.for_training(steps_per_epoch(len(self.data.x_train)), epochs, sparsity=SPARSITY)
        pruning = step.apply(student)
        seconds = self.distil("pruned", pruning, self.plan.fine_tuning_rate, epochs, step.callbacks())
        pruned = step.strip(pruning)
        step.check(pruned)
        self.note("pruned", pruned, pruned.get_weights(), seconds)
        return step, pruned

    def quantize(self, pruned, pruning):
        """Trains the pruned student quantization-aware, the teacher still on."""
        step = QuantizeAware()
        quantized = step.apply(pruned)
        seconds = self.distil("quantized", quantized, self.plan.fine_tuning_rate, self.plan.quantizing_epochs, step.callbacks())
        step.check(quantized)
        pruning.check(quantized)
        weights = [w for layer in rebuild.layers_by_name(quantized).values() for w in rebuild.effective_weights(layer)]
        self.note("quantized", quantized, weights, seconds)
        return step.strip(quantized)


def run_demo(dataset="digits", data=None, seed=0, out="runs/demo", epochs_scale=1.0, say=print):
    """Runs the demo.

    Args:
        dataset: "digits" or "fashion-mnist".
        data: Folder of Fashion-MNIST's four files, or None.
        seed: Seed of weights and order.
        out: Folder of the results; made if it is missing.
        epochs_scale: Factor on all numbers of epochs, above 0.
        say: Function that is given lines of text on the way.

    Returns:
        The `Summary`, which is also written to `out`.

    Raises:
        ConfigurationError: for an unwritable folder, an unknown data set, or a factor that is not above 0; before any training.
    """
    if not epochs_scale > 0:
        raise ConfigurationError(f"epochs_scale is {epochs_scale}.", "a factor above 0")
    out = writable_folder(out)
    images = datasets.load(dataset, data)
    demo = Demo(images, PLANS[dataset].scaled(epochs_scale), seed, say)

    teacher = demo.train_teacher()
    demo.keep_answers(out / "soft_targets")
    scratch = demo.train_scratch()
    student = demo.train_distilled()
    pruning, pruned = demo.prune(student)
    quantized = demo.quantize(pruned, pruning)
    for name, model in (("teacher", teacher), ("scratch", scratch), ("student", pruned)):
        with write_whole(out / f"{name}.keras") as beside:
            model.save(beside)

    exports, timings = [], []
    for variant, model in (("float32", pruned), ("int8", quantized)):
        path = out / f"student_{variant}.tflite"
        exported = export_tflite(model, path, variant, calibration=images.x_train[:256], verify_on=(images.x_test, images.y_test))
        exports.append(exported)
        timings.append(benchmark(path, Cpu(threads=1), variant=variant))
        say(f"{variant:>10}: {exported.size_bytes / 1024:.1f} KiB, {100 * exported.accuracy:.1f} %, median {timings[-1].p50_ms:.3f} ms")

    summary = Summary(
        dataset=dataset,
        seed=seed,
        host=fingerprint(),
        stages=tuple(demo.stages),
        exports=tuple(Exported.from_dict(_as_named_in(Exported, e)) for e in exports),
        benchmarks=tuple(Timed.from_dict(_as_named_in(Timed, t)) for t in timings),
    )
    summary.save(out / "summary.json")
    summary_picture(summary, pathlib.Path(out) / "summary.png")
    return summary


def _as_named_in(kind, record):
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(kind)}
