"""What is logged while a student learns."""
