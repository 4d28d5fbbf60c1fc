"""Clustering: each kernel has a few distinct weights."""
