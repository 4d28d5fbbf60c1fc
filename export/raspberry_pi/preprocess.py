"""Makes the input of a model of a picture, as Keras does: resized as by `keras.layers.Resizing`, then normalized, then quantized."""

import numpy as np
from errors import KitError


def to_input(picture, tensor, mean=None, std=None, crop=False, antialias=False):
    """Makes one batch of an input.

    Args:
        picture: uint8 array (height, width, channels) of 1 or 3 channels.
        tensor: `runtime.Tensor` of shape (1, height, width, 1 or 3).
        mean: Mean of the normalization (pixel - mean) / std: a list of one number, or of one for each channel. None if there is none.
        std: Likewise.
        crop: Whether to cut off what has another aspect ratio than the input (`crop_to_aspect_ratio` of Keras), in place of stretching.
        antialias: Whether to smooth before a picture is made smaller (`antialias` of Keras).

    Returns:
        Array of the tensor's shape and type.

    Raises:
        KitError: if the input takes no picture.
    """
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in (1, 3):
        raise KitError(
            f"The input '{tensor.name}' of shape {tensor.shape} takes no single picture.", "use a model of one picture of 1 or 3 channels"
        )
    _, height, width, channels = tensor.shape
    values = resize(to_channels(picture, channels), height, width, crop, antialias)
    return tensor.quantize(normalize(values, mean, std))[None]


def to_channels(picture, channels):
    """Returns a picture with 1 or 3 channels; grey is made of colors as Pillow and `keras.utils.load_img` do (ITU-R 601)."""
    if picture.shape[-1] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, axis=-1)
    red, green, blue = (picture[..., i].astype(np.uint32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[..., None]


def normalize(values, mean, std):
    """Returns (values - mean) / std in float32; the values themselves without a mean."""
    if not mean:
        return values
    return (values - np.asarray(mean, np.float32)) / np.asarray(std or 1, np.float32)


def resize(picture, height, width, crop=False, antialias=False):
    """Resizes a picture bilinearly, as `keras.layers.Resizing` on TensorFlow.

    Args:
        picture: Array (height, width, channels).
        height: New height.
        width: New width.
        crop: As in `to_input`.
        antialias: As in `to_input`.

    Returns:
        float32 array (height, width, channels), not rounded.
    """
    values = _cropped(picture, height, width) if crop else picture
    values = values.astype(np.float32)
    if values.shape[:2] == (height, width):
        return values
    if antialias:
        rows, columns = _smoothing(values.shape[0], height), _smoothing(values.shape[1], width)
        return np.einsum("yi,ijc,xj->yxc", rows, values, columns, optimize=True).astype(np.float32)
    top, bottom, down = _neighbours(values.shape[0], height)
    left, right, across = _neighbours(values.shape[1], width)
    across, down = across[None, :, None], down[:, None, None]
    above, below = values[top], values[bottom]
    upper = above[:, left] + (above[:, right] - above[:, left]) * across
    lower = below[:, left] + (below[:, right] - below[:, left]) * across
    return upper + (lower - upper) * down


def _cropped(picture, height, width):
    """Cuts the largest part of the new aspect ratio out of the middle."""
    old_height, old_width = picture.shape[:2]
    rows = max(min(old_height, int(float(old_width * height) / width)), 1)
    columns = max(min(old_width, int(float(old_height * width) / height)), 1)
    top, left = int(float(old_height - rows) / 2), int(float(old_width - columns) / 2)
    return picture[top : top + rows, left : left + columns]


def _neighbours(old, new):
    """Returns the indices of the two pixels around each new one, and how far it is from the first to the second (0 to 1)."""
    place = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    lower = np.floor(place)
    return np.maximum(lower, 0).astype(int), np.minimum(lower + 1, old - 1).astype(int), place - lower


def _smoothing(old, new):
    """Returns the weights (new, old) of a triangle that is as wide as the new pixels are, at least as the old ones."""
    scale = old / new
    reach = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs((np.arange(old) + 0.5)[None] - centers[:, None]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
