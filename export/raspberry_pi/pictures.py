"""Reads pictures into arrays: with Pillow where it is installed, else PNG and PPM with the standard library."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
from errors import KitError

# Larger pictures are refused before they are unpacked.
MOST_PIXELS = 40_000_000
FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/x-portable-pixmap": "PPM",
    "image/bmp": "BMP",
    "image/webp": "WEBP",
    "image/gif": "GIF",
}
_OWN = ("image/png", "image/x-portable-pixmap")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the color type of PNG
_NO_PILLOW = "install Pillow: sudo apt install python3-pil, or .venv/bin/python -m pip install pillow"


def pillow():
    """Returns the module `PIL.Image`, or None if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def media_types():
    """Returns the media types of the pictures that can be read here."""
    return tuple(FORMATS) if pillow() else _OWN


def read(content):
    """Reads a picture.

    Args:
        content: The file as bytes, from anywhere.

    Returns:
        uint8 array (height, width, channels) of 1 or 3 channels. Transparency is dropped, as `keras.utils.load_img` does; a photo that its camera marked as turned is
        turned upright.

    Raises:
        KitError: if it is no picture, is damaged, is too large, or needs Pillow.
    """
    image = pillow()
    if image is not None:
        return _by_pillow(image, content)
    try:
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            return read_png(content)
        if content[:2] in (b"P5", b"P6"):
            return _read_ppm(content)
    except (struct.error, zlib.error, IndexError) as error:
        raise KitError(f"The picture is damaged: {error}.", "give a whole file") from error
    raise KitError("Without Pillow only PNG and PPM pictures are read.", _NO_PILLOW)


def _by_pillow(image, content):
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image.DecompressionBombWarning)
            opened = image.open(io.BytesIO(content), formats=tuple(FORMATS.values()))
            _require_size(*opened.size)
            upright = ImageOps.exif_transpose(opened)
            grey = upright.mode in ("L", "LA", "1")
            pixels = np.asarray(upright.convert("L" if grey else "RGB"), np.uint8)
    except UnidentifiedImageError as error:
        raise KitError("This is no picture of a known format.", f"give one of {', '.join(FORMATS.values())}") from error
    except (image.DecompressionBombWarning, image.DecompressionBombError) as error:
        raise KitError(f"The picture is too large: {error}.", "make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise KitError(f"The picture is damaged: {error}.", "give a whole file") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _require_size(width, height):
    if not (width and height) or width * height > MOST_PIXELS:
        raise KitError(f"The picture has {width} x {height} pixels.", f"give one of at most {MOST_PIXELS:,} pixels")


def read_png(content):
    """Reads a PNG file of 8 bits per value that is not interlaced (https://www.w3.org/TR/png-3)."""
    header, palette, packed = None, None, []
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", data)
        elif kind == b"PLTE":
            palette = np.frombuffer(data[: len(data) // 3 * 3], np.uint8).reshape(-1, 3)
        elif kind == b"IDAT":
            packed.append(data)
        elif kind == b"IEND":
            break
    if header is None:
        raise KitError("The picture is damaged: it has no header.", "give a whole file")
    width, height, bits, color, compression, filtering, interlaced = header
    _require_size(width, height)
    if bits != 8 or interlaced or color not in _CHANNELS or compression or filtering:
        raise KitError(
            f"Without Pillow only PNG pictures of 8 bits that are not interlaced are read; this one has {bits} bits.", _NO_PILLOW
        )
    channels = _CHANNELS[color]
    row = 1 + width * channels
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(b"".join(packed), row * height + 1)
    if len(raw) != row * height:
        raise KitError(f"The picture is damaged: it holds {len(raw)} bytes in place of {row * height}.", "give a whole file")
    pixels = _unfilter(np.frombuffer(raw, np.uint8).reshape(height, row), channels).reshape(height, width, channels)
    if color == 3:
        if palette is None or pixels.max() >= len(palette):
            raise KitError("The picture is damaged: a color is not in its palette.", "give a whole file")
        return palette[pixels[..., 0]]
    return np.ascontiguousarray(pixels[..., : 3 if channels > 2 else 1])  # without transparency


def _chunks(content):
    at = 8
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack_from(">I", content, at + 8 + size)
        if len(data) != size or zlib.crc32(kind + data) != checksum:
            raise KitError(f"The picture is damaged: the checksum of its part {kind.decode('latin-1')} is wrong.", "give a whole file")
        yield kind, data
        at += 12 + size


def _unfilter(rows, width):
    """Undoes the filters of PNG: rows of a filter's number and filtered bytes, of pixels of `width` bytes."""
    done = np.zeros((len(rows), rows.shape[1] - 1), np.uint8)
    above = np.zeros(rows.shape[1] - 1, np.uint8)
    for row, out in zip(rows, done):
        kind, values = row[0], row[1:]
        if kind == 0:
            out[:] = values
        elif kind == 1:  # the difference to the pixel before
            out[:] = np.cumsum(values.reshape(-1, width), axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:  # the difference to the pixel above
            out[:] = values + above
        elif kind in (3, 4):
            out[:] = _by_pixel(kind, bytes(values), bytes(above), width)
        else:
            raise KitError(f"The picture is damaged: a row has the filter {kind}.", "give a whole file")
        above = out
    return done


def _by_pixel(kind, values, above, width):
    """Undoes the filters `average` (3) and `Paeth` (4), each byte of which needs the one before."""
    out = bytearray(len(values))
    for i, value in enumerate(values):
        left = out[i - width] if i >= width else 0
        up = above[i]
        if kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[i - width] if i >= width else 0
            straight = left + up - corner
            by_left, by_up, by_corner = abs(straight - left), abs(straight - up), abs(straight - corner)
            guess = left if by_left <= by_up and by_left <= by_corner else up if by_up <= by_corner else corner
        out[i] = (value + guess) & 255
    return np.frombuffer(bytes(out), np.uint8)


def _read_ppm(content):
    found = re.match(rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,7})(?:\s|#[^\n]*\n)+(\d{1,7})(?:\s|#[^\n]*\n)+(\d{1,5})\s", content)
    if not found or int(found[4]) != 255:
        raise KitError("The picture is no PPM file of 8 bits per value.", _NO_PILLOW)
    channels, width, height = 1 if found[1] == b"5" else 3, int(found[2]), int(found[3])
    _require_size(width, height)
    pixels = np.frombuffer(content[found.end() :], np.uint8)
    if len(pixels) < width * height * channels:
        raise KitError("The picture is damaged: it ends before its last pixel.", "give a whole file")
    return pixels[: width * height * channels].reshape(height, width, channels)
