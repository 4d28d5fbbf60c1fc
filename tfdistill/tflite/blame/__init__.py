"""Where a file's error and the loss of accuracy come from: which layer, and which stage."""
