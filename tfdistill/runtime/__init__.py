"""Opens and runs .tflite files, and tries untrusted ones in another process first."""
