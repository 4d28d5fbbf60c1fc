"""Pruning: small weights become zero."""
