"""Initializes a student from its teacher's weights."""
