"""Layers are kept wider until a file loses no more accuracy than is allowed."""
