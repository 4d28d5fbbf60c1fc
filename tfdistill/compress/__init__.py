"""Compression steps: each makes a plan, applies it, trains under its callbacks, and checks its promise afterwards."""

from tfdistill.compress.cluster import Cluster
from tfdistill.compress.prune import Prune
from tfdistill.compress.quantize_aware import QuantizeAware
from tfdistill.compress.step import LayerPlan, Plan, Step

__all__ = ["Cluster", "LayerPlan", "Plan", "Prune", "QuantizeAware", "Step"]
