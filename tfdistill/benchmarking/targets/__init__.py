"""Where a file can be measured."""
