"""Backups of a training, from which an interrupted one is resumed exactly."""
