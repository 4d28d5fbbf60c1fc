"""Checksums of files."""

import hashlib

from tfdistill.utils.files import open_regular

_BLOCK_BYTES = 1 << 20


def sha256_of(path):
    """Computes the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: if it cannot be read, is a symbolic link or no regular file.
    """
    digest = hashlib.sha256()
    with open(open_regular(path), "rb") as file:
        update_from(digest, file)
    return digest.hexdigest()


def update_from(digest, file):
    """Feeds an open binary file to a `hashlib` digest, without holding the whole file in memory."""
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
