"""Channel pruning: filters, units, attention heads and widths that are removed for real, so that every tensor gets smaller."""
