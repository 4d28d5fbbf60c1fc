"""Accuracy of smaller shapes on Fashion-MNIST: criteria of `PruneChannels`, kinds of `LowRank`; writes docs/shrinking.md and its pictures.

    python benchmarks/shrinking.py [--only resnet vgg mobilenet] [--seeds 3] [--records runs/shrinking] [--page docs/shrinking.md]

Three small nets like ResNet, VGG and MobileNetV2 are trained on 20,000 images. Then each is made smaller: in one go to a share of its multiply-accumulates by
each criterion of channel pruning, and to a share of its parameters by each kind of low-rank factorization. The accuracy on the 10,000 test images is measured right after it,
after the statistics of BatchNormalization were estimated anew (no weight is trained), and after a short training: by the labels alone, and under the original net
as the teacher. All of these trainings have the same number of epochs, rate and seed; criteria by data get the same images of the training part.

The data is Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist); without it Keras downloads it. A run that was interrupted goes on where it
ended: for each net and seed the trained net is saved, and a record that is written after each step. `TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1` has it take one
core; other nets may run at the same time, with the same folder of records.
"""

import argparse
import dataclasses
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from shrinking_nets import NETS, net
from shrinking_page import GOAL, LONG, METHODS, NARROW_WHOLE, SHARES, TIMES, UNCHANGED, NetOfStudy, Shrunk, write_page

import tfdistill
from tfdistill import Distiller
from tfdistill.compress import LowRank, PruneChannels
from tfdistill.demo import datasets
from tfdistill.host import fingerprint
from tfdistill.losses import SoftTargets
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

BATCH, EVALUATED_BATCH = 128, 500
RATE = 3e-3  # of both trainings: with a third of it three epochs lose 0.6 points more
TEMPERATURE, LABELS_SHARE = 2.0, 0.3
STATISTICS_BATCHES = 30
CRITERIA = ("l1", "l2", "bn_scale", "taylor", "fisher", "hrank", "output_distance", "random")
BY_LABELS, BY_IMAGES = ("taylor", "fisher"), ("hrank", "output_distance")
# Criteria that are trained at every share, and those that are tried in several rounds as well.
FOLLOWED, IN_ROUNDS, ROUNDS = ("l1", "taylor", "random"), ("l1", "taylor"), 3
# Criteria that are also trained longer where the goals are, beside the net itself.
LONGER = ("l1", "l2", "bn_scale", "taylor", "random")
# Of inverted residuals, at which shares the narrow convolutions stay whole as well.
NARROW, NARROW_SHARES = ("l2",), (0.48, 0.3)
STEPS = (*CRITERIA, *METHODS, UNCHANGED)


@dataclasses.dataclass(frozen=True)
class Step:
    """One way to make a net smaller.

    Attributes:
        name: Criterion of channel pruning, or method of low-rank factorization; `UNCHANGED` for the net itself, trained on like the others.
        keep: Share of the multiply-accumulates, or of the parameters, that stays.
        tuned: How it is trained afterwards: some of "labels" and "teacher".
        rounds: Rounds of channel pruning, with training after each of them.
        times: So many times as many epochs of training.
        narrow: Whether convolutions that narrow lose channels, too.
    """

    name: str
    keep: float
    tuned: tuple[str, ...] = ()
    rounds: int = 1
    times: int = 1
    narrow: bool = True

    @property
    def shown(self):
        if self.times > 1:
            return f"{self.name}{LONG}"
        if not self.narrow:
            return f"{self.name}{NARROW_WHOLE}"
        return self.name if self.rounds == 1 else f"{self.name}, {self.rounds} rounds"

    def apply(self, model, data):
        """Returns the smaller model."""
        if self.name == UNCHANGED:
            same = keras.models.clone_model(model)
            same.set_weights(model.get_weights())
            return same
        if self.name in METHODS:
            # The method says what becomes of convolutions; a dense layer has the truncated SVD alone.
            methods = {f"{layer.name}*": "svd" for layer in model.layers if isinstance(layer, keras.layers.Dense)} | {"*": self.name}
            return LowRank(keep_parameters=self.keep, method=methods, divisor=1).apply(model, calibration=data.calibration[0])
        step = PruneChannels(keep_macs=self.keep, criterion=self.name, divisor=1, seed=data.seed, exclude=None if self.narrow else _narrows)
        if self.rounds > 1:
            step = step.rounds(self.rounds)[0]
        given = (*data.calibration, _labels()) if self.name in BY_LABELS else data.calibration[:1] if self.name in BY_IMAGES else ()
        return step.apply(model, *given)


def _narrows(layer):
    return type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.filters < layer.kernel.shape[2]


def steps_of(name, chosen, shares):
    """Lists the `Step`s of a net that are among the chosen ones, those first that the goals are about."""
    # Kernels of size 1 and depthwise ones have no other factorization.
    methods = ("svd",) if name == "mobilenet" else METHODS
    found = [Step(one, GOAL, ("teacher", "labels")) for one in (*CRITERIA, *methods)]
    found += [Step(one, GOAL, ("teacher",), ROUNDS) for one in IN_ROUNDS]
    for keep in SHARES:
        if keep != GOAL:
            # A run for each channel is dear, so the distance is measured where the goals are alone.
            found += [Step(one, keep, ("teacher",) if one in FOLLOWED else ()) for one in CRITERIA if one != "output_distance"]
            # Where little is removed, factorizations lose next to nothing before any training.
            found += [Step(one, keep, ("teacher",) if keep < GOAL else ()) for one in methods]
    found += [Step(one, GOAL, ("teacher",), times=TIMES) for one in LONGER]
    found += [Step(one, keep, ("teacher",), narrow=False) for one in NARROW for keep in NARROW_SHARES if name == "mobilenet"]
    found = [step for step in found if step.keep in shares]
    found += [Step(UNCHANGED, 1.0, ("teacher", "labels")), Step(UNCHANGED, 1.0, ("teacher",), times=TIMES)]
    return [step for step in found if step.name in chosen]


@dataclasses.dataclass(frozen=True)
class StudyData:
    """Data of a seed.

    Attributes:
        images: `tfdistill.demo.datasets.Images`.
        calibration: Images of the training part and their labels, for criteria by data.
        seed: Seed of the trainings.
    """

    images: datasets.Images
    calibration: tuple[np.ndarray, np.ndarray]
    seed: int

    @property
    def training(self):
        return self.images.x_train, self.images.y_train

    def accuracy(self, model):
        """Returns the accuracy on the test part, 0 to 1."""
        outputs = model.predict(self.images.x_test, batch_size=EVALUATED_BATCH, verbose=0)
        return float((outputs.argmax(-1) == self.images.y_test).mean())


def _labels():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train(model, data, epochs, cache=None):
    """Trains a model in place: by the labels, or under the teacher whose outputs are in a cache."""
    keras.utils.set_random_seed(data.seed)
    steps = epochs * -(-len(data.images.x_train) // BATCH)
    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(RATE, steps), weight_decay=1e-4)
    if cache is None:
        model.compile(optimizer, _labels(), jit_compile=False)
        model.fit(*data.training, batch_size=BATCH, epochs=epochs, verbose=0)
        return
    distiller = Distiller(cache, model, SoftTargets(TEMPERATURE), student_loss_weight=LABELS_SHARE)
    distiller.compile(optimizer, _labels(), jit_compile=False)
    distiller.fit(cache.join(data.training, batch_size=BATCH, seed=data.seed), epochs=epochs, verbose=0, shuffle=False)


def estimate_statistics(model, data):
    """Estimates the statistics of BatchNormalization anew, and trains nothing."""
    order = np.random.default_rng(data.seed).permutation(len(data.images.x_train))
    run = tf.function(lambda x: model(x, training=True))
    for begin in range(0, min(len(order), STATISTICS_BATCHES * BATCH), BATCH):
        run(data.images.x_train[order[begin : begin + BATCH]])


def measure(step, model, data, cache, epochs):
    """Returns the `Shrunk` of a step."""
    began, counted = time.process_time(), "parameters" if step.name in METHODS else "macs"
    whole = tfdistill.profile(model)
    small = step.apply(model, data)
    seconds, accuracies = time.process_time() - began, {}
    if step.rounds == 1:
        made = small.get_weights()
        if step.times == 1:
            accuracies["before"] = data.accuracy(small)
            estimate_statistics(small, data)
            accuracies["statistics"] = data.accuracy(small)
        for way in step.tuned:
            small.set_weights(made)
            train(small, data, step.times * epochs, cache if way == "teacher" else None)
            accuracies[way] = data.accuracy(small)
    else:
        for number in range(step.rounds):
            small = step.apply(small, data) if number else small
            # As many epochs in all as for the others.
            train(small, data, epochs // step.rounds, cache)
        accuracies["teacher"] = data.accuracy(small)
    kept = tfdistill.profile(small)
    share = getattr(kept, counted) / getattr(whole, counted)
    return Shrunk(step.shown, step.keep, share, kept.macs, kept.parameters, accuracies, seconds, time.process_time() - began)


def settings_of(data, arguments):
    """Returns the settings that all records of a page share."""
    return {
        "dataset": arguments.dataset,
        "samples": len(data.images.x_train),
        "epochs": arguments.epochs,
        "tuning_epochs": arguments.tuning_epochs,
        "calibration": len(data.calibration[0]),
    }


def begin(name, data, arguments):
    """Trains a net, saves it, and returns its `NetOfStudy` without steps."""
    began = time.process_time()
    keras.utils.set_random_seed(data.seed)
    model = net(name, data.images.shape)
    train(model, data, arguments.epochs)
    accuracy, counted = data.accuracy(model), tfdistill.profile(model)
    arguments.records.mkdir(parents=True, exist_ok=True)
    model.save(arguments.records / f"{name}_{data.seed}.keras")
    return NetOfStudy(
        net=name,
        seed=data.seed,
        **settings_of(data, arguments),
        parameters=counted.parameters,
        macs=counted.macs,
        accuracy=accuracy,
        steps=(),
        cpu_seconds=time.process_time() - began,
        host=fingerprint(),
    )


def study(name, data, arguments, advance):
    """Measures what a record lacks of a net and a seed, and writes it after each step."""
    path = arguments.records / f"{name}_{data.seed}.json"
    if not path.exists():
        begin(name, data, arguments).save(path)
    record = NetOfStudy.load(path)
    settings = settings_of(data, arguments)
    if record.settings != settings:
        raise SystemExit(f"{path} is of {record.settings}, not {settings}; give another folder of --records.")
    found = {(one.step, one.keep) for one in record.steps}
    wanted = steps_of(name, arguments.steps, arguments.shares)
    missing = [step for step in wanted if (step.shown, step.keep) not in found]
    advance(len(wanted) - len(missing))
    if not missing:
        return
    model = keras.models.load_model(arguments.records / f"{name}_{data.seed}.keras", compile=False)
    with temporary_folder() as folder:
        cache = tfdistill.soft_targets(model, data.training, folder / "teacher", options=tfdistill.CacheOptions(batch_size=EVALUATED_BATCH))
        for step in missing:
            keras.backend.clear_session()
            one = measure(step, model, data, cache, arguments.tuning_epochs)
            record = dataclasses.replace(record, steps=(*record.steps, one))
            record.save(path)
            said = ", ".join(f"{way} {100 * share:.2f}" for way, share in one.accuracies.items())
            print(f"{name} {data.seed} {one.step} {one.share:.3f}: {said}; {one.cpu_seconds:.0f} s", flush=True)
            advance()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--shares", nargs="+", type=float, choices=SHARES, default=SHARES)
    parser.add_argument("--dataset", choices=datasets.NAMES, default="fashion-mnist")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--tuning-epochs", type=int, default=3, help="a multiple of the rounds, three")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/shrinking"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/shrinking.md"))
    arguments = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # it warns that every model is traced anew
    images = datasets.load(arguments.dataset).first(arguments.samples)
    total = arguments.seeds * sum(len(steps_of(name, arguments.steps, arguments.shares)) for name in arguments.only)
    with progress("Steps", total) as advance:
        for seed in range(arguments.seeds):
            chosen = np.random.default_rng(seed).choice(len(images.x_train), arguments.calibration, replace=False)
            data = StudyData(images, (images.x_train[chosen], images.y_train[chosen]), seed)
            for name in arguments.only:
                study(name, data, arguments, advance)
                write_page([NetOfStudy.load(path) for path in sorted(arguments.records.glob("*.json"))], arguments.page)


if __name__ == "__main__":
    main()
