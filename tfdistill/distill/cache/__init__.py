"""Soft targets on disk: written once, joined with the data."""
