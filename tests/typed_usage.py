"""What a type checker is to say of scripts that use the public names; nothing here is run."""

import tfdistill


def read(path: str) -> bool:
    """A record's attributes have types."""
    return bool(tfdistill.census(path))
