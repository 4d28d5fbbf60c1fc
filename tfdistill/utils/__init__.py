"""Small shared tools."""
