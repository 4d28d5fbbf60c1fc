"""ChainRunner of several generations or peers."""
