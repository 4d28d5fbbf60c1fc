"""What a .tflite file says of itself to programs and people: labels, normalization, author, license, and how it was made."""
