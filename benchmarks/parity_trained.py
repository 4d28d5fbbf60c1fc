"""The bridge's parity check on trained networks of real size: refused correct copies, and the largest difference that it accepts.

    python benchmarks/parity_trained.py [--only MobileNetV2 ...] [--checkpoints 20] [--learning-rate 0.2] [--out runs/parity_trained.json]

Nets of keras.applications at 32x32 are trained on scikit-learn's digits at a learning rate that is too high, so that the statistics of
their normalizations are extreme, and compared with their tf_keras copies after every epoch.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits

from tfdistill.bridge import check_parity, to_tf_keras
from tfdistill.errors import BridgeError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.utils.progress import track

FAMILIES = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"alpha": 0.75, "include_preprocessing": False},
    "EfficientNetB0": {},
    "ResNet50": {},
}


@dataclasses.dataclass(frozen=True)
class TrainedParity(Record):
    """The results of one family of networks.

    Attributes:
        family: Name of the family.
        checkpoints: Number of checkpoints that were compared.
        refusals: The messages of those that the check refused.
        beyond_tolerance: Number of checkpoints whose outputs differed by more than the tolerance, which the check explained by amplified
            rounding.
        max_abs_error: Largest difference of the outputs that passed.
    """

    family: str
    checkpoints: int
    refusals: tuple[str, ...]
    beyond_tolerance: int
    max_abs_error: float
    host: HostFingerprint


def digits():
    found = load_digits()
    images = np.repeat(np.repeat(found.images / 16.0, 4, 1), 4, 2)[..., None].repeat(3, -1)
    return images.astype("float32")[:1280], found.target[:1280]


def compare(family, checkpoints, learning_rate):
    """Trains one net and compares it after every epoch."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, family)(weights=None, input_shape=(32, 32, 3), classes=10, **FAMILIES[family])
    model.compile(keras.optimizers.SGD(learning_rate, 0.9), "sparse_categorical_crossentropy")
    x, y = digits()
    refusals, errors, beyond = [], [0.0], 0
    for number in track(range(checkpoints), family):
        model.fit(x, y, batch_size=64, verbose=0)
        try:
            record = check_parity(model, to_tf_keras(model, check=False), seed=number)
            errors.append(record.max_abs_error)
            beyond += record.layer is not None
        except BridgeError as error:
            refusals.append(error.happened)
    return TrainedParity(family, checkpoints, tuple(refusals), beyond, max(errors), fingerprint())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/parity_trained.json"))
    options = parser.parse_args()
    for family in options.only:
        record = compare(family, options.checkpoints, options.learning_rate)
        record.save(options.out.with_stem(f"{options.out.stem}_{family}"))
        print(
            f"{family}: {len(record.refusals)} of {record.checkpoints} refused, {record.beyond_tolerance} beyond the tolerance, "
            f"largest difference {record.max_abs_error:.2g}"
        )
        for refusal in record.refusals:
            print(f"  {refusal}")


if __name__ == "__main__":
    main()
