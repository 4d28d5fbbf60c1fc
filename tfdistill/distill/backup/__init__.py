"""Interrupted trainings that go on as if they had not been interrupted."""
