"""A smaller student from a model's own graph: fewer channels, and fewer of the blocks that repeat."""
