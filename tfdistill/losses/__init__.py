"""Losses: what a teacher knows, and how a student is held to it."""

from tfdistill.losses.attention import AttentionMaps, AttentionTransfer
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.contrastive import ContrastiveRepresentation
from tfdistill.losses.correlation import DIST
from tfdistill.losses.decoupled import DecoupledKD
from tfdistill.losses.features import HiddenStates, Hint
from tfdistill.losses.kernels import CorrelationCongruence, ProbabilisticTransfer
from tfdistill.losses.logits import BinarySoftTargets, LogitMatching, SoftTargets
from tfdistill.losses.regression import OutputMatching, TeacherBounded
from tfdistill.losses.relations import RelationalKD, SimilarityPreserving
from tfdistill.losses.schedules import CosineSchedule, LinearSchedule, PiecewiseSchedule

__all__ = [
    "DIST",
    "AttentionMaps",
    "AttentionTransfer",
    "BinarySoftTargets",
    "ContrastiveRepresentation",
    "CorrelationCongruence",
    "CosineSchedule",
    "DecoupledKD",
    "HiddenStates",
    "Hint",
    "KnowledgeLoss",
    "LinearSchedule",
    "LogitMatching",
    "OutputMatching",
    "PiecewiseSchedule",
    "ProbabilisticTransfer",
    "RelationalKD",
    "SimilarityPreserving",
    "SoftTargets",
    "TeacherBounded",
]
