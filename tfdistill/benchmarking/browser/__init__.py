"""A browser that is driven by the DevTools protocol, and the page in it that runs .tflite files."""
