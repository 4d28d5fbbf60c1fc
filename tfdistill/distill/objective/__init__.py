"""The distillation loss of one batch: forward passes, terms, projections, checks."""
