"""Records of the trainings of a chain."""

import dataclasses

from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class Generation(Record):
    """One training of a chain.

    Attributes:
        name: Name of the model that was trained.
        teachers: Names of its teachers; empty if it was trained on labels alone.
        role: "assistant", "student", "block: <layer>", "generation", "ensemble", "peer" or "average".
        parameters: Number of the trained model's weights.
        epochs: Number of epochs that were trained.
        seconds: Time of training and evaluation.
        metrics: What `evaluate` returns after the training, on the validation data, or on the training data if there are none.
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
    """The result of a chain.

    Attributes:
        kind: "assistants", "blockwise", "born_again", "mutual" or "many_to_one".
        evaluated_on: "validation data" or "training data".
        generations: One for each training, in order.
        seconds: Time of the whole chain.
        notes: Remarks on how to read the numbers.
    """

    kind: str
    evaluated_on: str
    generations: tuple[Generation, ...]
    seconds: float
    notes: tuple[str, ...] = ()
