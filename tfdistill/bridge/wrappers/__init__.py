"""Wrappers around one tf_keras layer: pruning, clustering, quantization."""
