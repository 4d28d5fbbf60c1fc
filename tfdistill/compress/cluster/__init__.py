"""Clustering: few distinct weights."""
