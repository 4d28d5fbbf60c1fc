"""Records of a chain of trainings."""

import dataclasses

from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class Generation(Record):
    """One training of a chain.

    Attributes:
        name: Name of the model that was trained.
        teachers: Names of what taught it; empty if it had labels alone.
        role: "assistant", "student", "block", "generation", "peer" or "average".
        parameters: Number of the trained model's weights.
        epochs: Number of epochs that it was trained.
        seconds: Time of training and evaluation.
        metrics: What `evaluate` says after the training, on the validation data, or without such on the training data.
    """

    name: str
    teachers: tuple[str, ...]
    role: str
    parameters: int
    epochs: int
    seconds: float
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class ChainRecord(Record):
    """What came of a chain.

    Attributes:
        kind: "assistants", "blockwise", "born_again", "mutual" or "many_to_one".
        evaluated_on: "validation data" or "training data".
        generations: One for each training, in order.
        seconds: Time of the whole chain.
        notes: What a reader of the numbers should know.
    """

    kind: str
    evaluated_on: str
    generations: tuple[Generation, ...]
    seconds: float
    notes: tuple[str, ...] = ()
