"""What can be a teacher."""
