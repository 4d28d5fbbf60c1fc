"""The table of losses that the other tests use, and a test that none is missing from it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy_reference as reference
import pytest

from tfdistill import losses
from tfdistill.losses import KnowledgeLoss, LinearSchedule

LOGITS = (6, 5)
STEPS = (3, 2, 4)
MAPS = (3, 4, 4, 3)


@dataclasses.dataclass(frozen=True)
class Row:
    """A loss, the shapes of its inputs, and its reference."""

    loss: Any
    reference: Callable
    teacher: tuple = LOGITS
    student: tuple = LOGITS
    labels: str | None = None
    zero_if_equal: bool = True
    step: int | None = None
    position_weights: bool = False

    def data(self, seed=3):
        """Teacher's output, student's output and labels, float64."""
        rng = np.random.default_rng(seed)
        teacher = self.in_space(rng.normal(size=self.teacher) * 1.5, "teacher")
        student = self.in_space(rng.normal(size=self.student) * 1.5, "student")
        labels = {"classes": rng.integers(0, 5, len(student)), "numbers": 0.5 * teacher + rng.normal(size=self.teacher), None: None}[
            self.labels
        ]
        return teacher, student, labels

    def in_space(self, x, side):
        activation = self.activation(side)
        return x if activation is None else getattr(reference, activation)(x)

    def activation(self, side):
        """Returns the activation whose outputs the loss expects of a side, or None."""
        if isinstance(self.loss, losses.AttentionMaps):
            return "softmax"
        space = getattr(self.loss, f"{side}_outputs", "logits")
        probabilities = "sigmoid" if isinstance(self.loss, losses.BinarySoftTargets) else "softmax"
        return {"logits": None, "probabilities": probabilities, "log_probabilities": "log_softmax"}[space]

    def expected(self, teacher, student, labels, weights=None):
        return self.reference(teacher, student, np.ones(len(student)) if weights is None else np.asarray(weights, "float64"), labels)

    def compute(self, teacher, student, labels=None, weights=None):
        return self.loss.compute_loss(teacher, student, sample_weight=weights, step=self.step, labels=labels)


def row(name, loss, formula, *shapes, reference_settings=None, **settings):
    shapes = dict(zip(("teacher", "student"), shapes, strict=False))
    return pytest.param(Row(loss, functools.partial(formula, **(reference_settings or {})), **shapes, **settings), id=name)


def soft(name, loss, *shapes, zero_if_equal=True, step=None, position_weights=False, **settings):
    return row(
        name,
        loss,
        reference.soft_targets,
        *shapes,
        reference_settings=settings,
        zero_if_equal=zero_if_equal,
        step=step,
        position_weights=position_weights,
    )


TABLE = [
    soft("kl", losses.SoftTargets(4.0)),
    soft("kl-T1", losses.SoftTargets(1.0), temperature=1.0),
    soft("kl-steps", losses.SoftTargets(2.0), STEPS, STEPS, temperature=2.0, position_weights=True),
    soft("kl-scheduled", losses.SoftTargets(LinearSchedule(5.0, 1.0, 10)), temperature=3.0, step=5),
    soft("reverse-kl", losses.SoftTargets(3.0, "reverse_kl"), temperature=3.0, divergence="reverse_kl"),
    soft("js", losses.SoftTargets(3.0, "js"), temperature=3.0, divergence="js"),
    soft("cross-entropy", losses.SoftTargets(3.0, "cross_entropy"), temperature=3.0, divergence="cross_entropy", zero_if_equal=False),
    soft("standardized", losses.SoftTargets(2.0, standardize=True), temperature=2.0, standardize=True),
    soft(
        "probabilities",
        losses.SoftTargets(2.0, teacher_outputs="probabilities"),
        temperature=2.0,
        teacher="probabilities",
        zero_if_equal=False,
    ),
    soft(
        "both-probabilities",
        losses.SoftTargets(2.0, teacher_outputs="probabilities", student_outputs="probabilities"),
        temperature=2.0,
        teacher="probabilities",
        student="probabilities",
    ),
    soft("log-probabilities", losses.SoftTargets(2.0, teacher_outputs="log_probabilities"), temperature=2.0),
    row("decoupled", losses.DecoupledKD(), reference.decoupled_kd, labels="classes"),
    row(
        "decoupled-teacher",
        losses.DecoupledKD(2.0, 0.5, 3.0, target="teacher"),
        reference.decoupled_kd,
        reference_settings={"temperature": 2.0, "alpha": 0.5, "beta": 3.0, "target": "teacher"},
    ),
    row("dist", losses.DIST(), reference.dist),
    row(
        "dist-steps",
        losses.DIST(2.0, 0.5, 3.0),
        reference.dist,
        STEPS,
        STEPS,
        reference_settings={"temperature": 2.0, "beta": 0.5, "gamma": 3.0},
        position_weights=True,
    ),
    row("logit-matching", losses.LogitMatching(), reference.logit_matching),
    row("logit-matching-centered", losses.LogitMatching(centered=True), reference.logit_matching, reference_settings={"centered": True}),
    row("binary", losses.BinarySoftTargets(), reference.binary_soft_targets),
    row(
        "binary-one", losses.BinarySoftTargets(3.0), reference.binary_soft_targets, (6, 1), (6, 1), reference_settings={"temperature": 3.0}
    ),
    row(
        "binary-probabilities",
        losses.BinarySoftTargets(2.0, teacher_outputs="probabilities"),
        reference.binary_soft_targets,
        reference_settings={"temperature": 2.0, "teacher": "probabilities"},
        zero_if_equal=False,
    ),
    row("outputs-mse", losses.OutputMatching(), reference.output_matching),
    row("outputs-mae", losses.OutputMatching("mae"), reference.output_matching, reference_settings={"loss": "mae"}),
    row(
        "outputs-huber", losses.OutputMatching("huber", 0.7), reference.output_matching, reference_settings={"loss": "huber", "delta": 0.7}
    ),
    row("teacher-bounded", losses.TeacherBounded(), reference.teacher_bounded, labels="numbers"),
    row(
        "teacher-bounded-margin",
        losses.TeacherBounded(2.0),
        reference.teacher_bounded,
        labels="numbers",
        zero_if_equal=False,
        reference_settings={"margin": 2.0},
    ),
    row("hint", losses.Hint(), reference.hint),
    row(
        "hint-cosine",
        losses.Hint(loss="cosine"),
        reference.hint,
        STEPS,
        STEPS,
        reference_settings={"loss": "cosine"},
        position_weights=True,
    ),
    row("hint-smooth-l1", losses.Hint(loss="smooth_l1"), reference.hint, reference_settings={"loss": "smooth_l1"}),
    row("hint-pooled", losses.Hint(), reference.hint, MAPS, (3, 2, 2, 3)),
    row("hint-pooled-uneven", losses.Hint(), reference.hint, (2, 5, 3, 2), (2, 3, 4, 2)),
    row("hidden-states", losses.HiddenStates(), reference.hint, STEPS, STEPS, position_weights=True),
    row("hidden-states-cosine", losses.HiddenStates(loss="cosine"), reference.hint, STEPS, STEPS, reference_settings={"loss": "cosine"}),
    row("attention-transfer", losses.AttentionTransfer(), reference.attention_transfer, MAPS, (3, 4, 4, 2)),
    row(
        "attention-transfer-pooled",
        losses.AttentionTransfer(power=4.0),
        reference.attention_transfer,
        MAPS,
        (3, 3, 2, 2),
        reference_settings={"power": 4.0},
    ),
    row("attention-maps", losses.AttentionMaps(), reference.attention_maps, (2, 2, 3, 3), (2, 2, 3, 3), position_weights=True),
    row(
        "attention-maps-mean-kl",
        losses.AttentionMaps(heads="mean", loss="kl"),
        reference.attention_maps,
        (2, 4, 3, 3),
        (2, 2, 3, 3),
        reference_settings={"heads": "mean", "loss": "kl"},
    ),
    row("similarity", losses.SimilarityPreserving(), reference.similarity_preserving, MAPS, (3, 2, 2, 2)),
    row("relational", losses.RelationalKD(), reference.relational, (6, 7), (6, 3)),
    row(
        "relational-distance",
        losses.RelationalKD(1.5, 0.0),
        reference.relational,
        (6, 7),
        (6, 3),
        reference_settings={"distance_weight": 1.5, "angle_weight": 0},
    ),
    row("probabilistic", losses.ProbabilisticTransfer(), reference.probabilistic_transfer, (6, 7), (6, 3)),
    row("congruence", losses.CorrelationCongruence(), reference.correlation_congruence, (6, 7), (6, 3)),
    row(
        "congruence-exact",
        losses.CorrelationCongruence(order=None),
        reference.correlation_congruence,
        (6, 7),
        (6, 3),
        reference_settings={"order": None},
    ),
    row(
        "congruence-bilinear",
        losses.CorrelationCongruence("bilinear"),
        reference.correlation_congruence,
        (6, 7),
        (6, 3),
        reference_settings={"kernel": "bilinear"},
    ),
    row("contrastive", losses.ContrastiveRepresentation(dimensions=None), reference.contrastive, zero_if_equal=False),
    row(
        "contrastive-classes",
        losses.ContrastiveRepresentation(dimensions=4, temperature=0.5, negatives="other_classes"),
        reference.contrastive,
        (6, 2, 4),
        (6, 3, 4),
        labels="classes",
        zero_if_equal=False,
        reference_settings={"temperature": 0.5, "other_classes": True},
    ),
]
every_loss = pytest.mark.parametrize("case", TABLE)


def test_every_public_loss_has_a_row():
    public = {v for v in (getattr(losses, n) for n in losses.__all__) if isinstance(v, type) and issubclass(v, KnowledgeLoss)} - {
        KnowledgeLoss
    }
    assert public == {type(param.values[0].loss) for param in TABLE}


def test_every_loss_class_that_can_be_made_is_public():
    def below(kind):
        return {kind}.union(*(below(k) for k in kind.__subclasses__()))

    registered = {
        k
        for k in below(KnowledgeLoss)
        if k.__module__.startswith("tfdistill.losses") and keras.saving.get_registered_name(k).startswith("tfdistill>")
    }
    assert {k.__name__ for k in registered} <= set(losses.__all__)
    assert len(registered) == 16
