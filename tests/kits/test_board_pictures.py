"""Pictures on boards: the reader of the standard library against Pillow, and the way to the input against Keras."""

import io
import struct
import zlib

import board_kit
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

pictures, preprocess, errors, runtime = (board_kit.module(name) for name in ("pictures", "preprocess", "errors", "runtime"))
MODES = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "P": 1}


def random_picture(height, width, channels, seed, smooth=False):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if smooth:
        values = (np.add.outer(np.arange(height), np.arange(width))[..., None] * (1 + np.arange(channels)) + values // 32).astype(np.uint8)
    return values[..., 0] if channels == 1 else values


def png(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def expected(image):
    grey = image.mode in ("L", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(MODES)), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9), st.booleans(), st.sampled_from([0, 6, 9]))
def test_own_png_reader_reads_what_pillow_writes(mode, height, width, seed, smooth, level):
    if mode == "P":
        image = Image.fromarray(random_picture(height, width, 3, seed, smooth)).quantize(200)
        image.putpalette(image.getpalette()[:768] + [0] * (768 - len(image.getpalette()[:768])))
        content = png(image, compress_level=level, bits=8)
    else:
        image = Image.fromarray(random_picture(height, width, MODES[mode], seed, smooth), mode)
        content = png(image, compress_level=level)
    np.testing.assert_array_equal(pictures.read_png(content), expected(image))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered_png(pixels, kinds):
    """Writes a PNG file with the given filter in each row, computed as the specification says."""
    height, width, channels = pixels.shape
    rows, above = [], np.zeros(width * channels, int)
    for kind, row in zip(kinds, pixels.reshape(height, -1).astype(int), strict=True):
        left = np.concatenate([np.zeros(channels, int), row[:-channels]])
        corner = np.concatenate([np.zeros(channels, int), above[:-channels]])
        p = left + above - corner
        distance = np.abs(np.stack([p - left, p - above, p - corner]))
        paeth = np.choose(distance.argmin(0), [left, above, corner])
        guess = [0, left, above, (left + above) // 2, paeth, 0][kind]  # there is no filter 5
        rows.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    packed = zlib.compress(b"".join(rows))
    half = len(packed) // 2
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", packed[:half]), chunk(b"IDAT", packed[half:]), chunk(b"IEND", b"")]
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9))
def test_every_filter_of_png(kinds, width, channels, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(kinds), width, channels), dtype=np.uint8)
    content = filtered_png(pixels, kinds)
    np.testing.assert_array_equal(pictures.read_png(content), expected(Image.open(io.BytesIO(content))))


def test_a_filter_that_does_not_exist_is_said():
    with pytest.raises(errors.KitError, match="filter 5"):
        pictures.read_png(filtered_png(np.zeros((2, 2, 1), np.uint8), [0, 5]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_damaged_pictures_are_errors_of_the_kit(place, byte, end):
    whole = png(Image.fromarray(random_picture(6, 7, 3, 1)))
    content = bytearray(whole[: len(whole) - end % len(whole)])
    content[place % len(content)] = byte
    for read in (pictures.read, _without_pillow):
        try:
            read(bytes(content))
        except errors.KitError:
            continue


def _without_pillow(content):
    found, pictures.pillow = pictures.pillow, lambda: None
    try:
        return pictures.read(content)
    finally:
        pictures.pillow = found


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


REFUSED = {
    "no picture": (b"hello", "no picture of a known format", "only PNG and PPM"),
    "nothing": (b"", "no picture of a known format", "only PNG and PPM"),
    "too many pixels": (bomb(50_000, 50_000), "too large|pixels", "pixels"),
    "no pixels": (bomb(0, 5), "damaged|pixels|no picture", "pixels"),
    "more bytes than pixels": (bomb(10, 10), None, "holds 111 bytes in place of 110"),
    "16 bits": (png(Image.fromarray(np.full((3, 3), 700, np.uint16))), None, "16 bits"),
    "a JPEG file": (b"\xff\xd8\xff\xe0" + bytes(50), "known format|damaged", "only PNG and PPM"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused(name):
    content, by_pillow, own = REFUSED[name]
    if by_pillow:
        with pytest.raises(errors.KitError, match=by_pillow):
            pictures.read(content)
    with pytest.raises(errors.KitError, match=own):
        _without_pillow(content)


def test_ppm():
    pixels = random_picture(4, 5, 3, 0)
    for content in (b"P6\n5 4\n255\n" + pixels.tobytes(), b"P6 # a comment\n5\n4 255 " + pixels.tobytes()):
        np.testing.assert_array_equal(_without_pillow(content), pixels)
        np.testing.assert_array_equal(pictures.read(content), pixels)
    with pytest.raises(errors.KitError, match="ends before"):
        _without_pillow(b"P6\n5 4\n255\n" + pixels.tobytes()[:-1])


def test_a_turned_photo_is_upright():
    pixels = random_picture(8, 16, 3, 0, smooth=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    assert pictures.read(png(Image.fromarray(pixels), exif=exif)).shape == (16, 8, 3)
    np.testing.assert_array_equal(pictures.read(png(Image.fromarray(pixels))), pixels)


def test_text_in_a_picture_changes_nothing():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "x" * 1000, zip=True)
    pixels = random_picture(5, 5, 3, 0)
    np.testing.assert_array_equal(_without_pillow(png(Image.fromarray(pixels), pnginfo=notes)), pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_colors_are_those_of_load_img(mode, color_mode, tmp_path):
    image = Image.fromarray(random_picture(9, 11, 3, 0)).convert(mode)
    image.save(tmp_path / "picture.png")
    loaded = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "picture.png", color_mode=color_mode))
    found = preprocess.to_channels(pictures.read((tmp_path / "picture.png").read_bytes()), 1 if color_mode == "grayscale" else 3)
    np.testing.assert_array_equal(found, loaded)


@settings(max_examples=60, deadline=None)
@given(*(st.integers(1, 40) for _ in range(4)), st.sampled_from([1, 3]), st.booleans(), st.booleans(), st.integers(0, 9))
def test_resized_as_by_keras(height, width, new_height, new_width, channels, crop, antialias, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    layer = keras.layers.Resizing(new_height, new_width, "bilinear", crop_to_aspect_ratio=crop, antialias=antialias)
    by_keras = np.asarray(layer(picture[None].astype("float32")))[0]
    found = preprocess.resize(picture, new_height, new_width, crop, antialias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_keras, rtol=0, atol=2e-3 if antialias else 1e-3)  # of 255


def test_a_photo_resized_as_by_keras():
    picture = random_picture(480, 640, 3, 0, smooth=True)
    by_keras = np.asarray(keras.layers.Resizing(96, 96)(picture[None].astype("float32")))[0]
    np.testing.assert_allclose(preprocess.resize(picture, 96, 96), by_keras, rtol=0, atol=1e-3)


class Fake:
    """The tensor of an input."""

    def __init__(self, shape, dtype, scale=None, zero_point=0):
        self.name, self.shape, self.dtype, self.scale, self.zero_point = "image", shape, dtype, scale, zero_point

    quantize = runtime.Tensor.quantize


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "mean", "std"),
    [
        ("float32", None, 0, [127.5], [127.5]),
        ("float32", None, 0, None, None),
        ("int8", 2 / 255, 0, [127.5], [127.5]),
        ("uint8", 1 / 255, 0, [0.0], [255.0]),
        ("uint8", 1.0, 0, None, None),
        ("float32", None, 0, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ],
)
def test_normalized_and_quantized_as_by_keras(dtype, scale, zero_point, mean, std):
    picture = random_picture(20, 31, 3, 0)
    tensor = Fake((1, 12, 12, 3), dtype, scale, zero_point)
    found = preprocess.to_input(picture, tensor, mean, std)
    assert (found.shape, found.dtype.name) == (tensor.shape, dtype)
    resized = np.asarray(keras.layers.Resizing(12, 12)(picture[None].astype("float32")))
    if mean:
        resized = np.asarray(keras.layers.Normalization(mean=mean, variance=np.square(std))(resized))
    if scale is None:
        np.testing.assert_allclose(found, resized, rtol=0, atol=1e-3 if mean is None else 1e-4)
    else:
        limits = np.iinfo(dtype)
        steps = np.clip(np.round(resized / scale) + zero_point, limits.min, limits.max)
        assert np.abs(found.astype(int) - steps).max() <= 1  # where a half is rounded
        assert (found == steps).mean() > 0.99


def test_a_uint8_picture_of_the_right_size_is_fed_as_it_is():
    picture = random_picture(12, 12, 3, 0)
    np.testing.assert_array_equal(preprocess.to_input(picture, Fake((1, 12, 12, 3), "uint8", 1.0))[0], picture)


def test_a_model_of_no_picture_is_refused():
    with pytest.raises(errors.KitError, match="takes no single picture"):
        preprocess.to_input(random_picture(4, 4, 3, 0), Fake((1, 10), "float32"))
