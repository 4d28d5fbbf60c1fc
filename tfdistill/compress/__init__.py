"""Compression steps: each makes a plan, applies it, trains under its callbacks, and checks its promise afterwards."""

from tfdistill.compress.cluster.cluster import Cluster
from tfdistill.compress.plan import LayerPlan, Plan
from tfdistill.compress.prune.prune import Prune
from tfdistill.compress.quantize.quantize_aware import QuantizeAware
from tfdistill.compress.step import Step

__all__ = ["Cluster", "LayerPlan", "Plan", "Prune", "QuantizeAware", "Step"]
