package tfdistill.kit

import java.nio.ByteBuffer

/**
 * An image of three bytes for each pixel.
 *
 * @property width pixels in a row.
 * @property height rows.
 * @property pixels red, green and blue of each pixel, row by row.
 */
public class RgbImage(public val width: Int, public val height: Int, public val pixels: ByteArray) {
    init {
        require(width > 0 && height > 0 && pixels.size == 3 * width * height) { "$width x $height pixels are not ${pixels.size} bytes" }
    }

    /** Returns the part in the middle that has the proportions of [targetWidth] x [targetHeight]: what Keras's `crop_to_aspect_ratio=True` keeps. */
    public fun croppedTo(targetWidth: Int, targetHeight: Int): RgbImage {
        // In float32 and rounded down, as Keras computes it: other rounding would cut another column.
        val keptHeight = ((width * targetHeight).toFloat() / targetWidth).toInt().coerceIn(1, height)
        val keptWidth = ((height * targetWidth).toFloat() / targetHeight).toInt().coerceIn(1, width)
        val top = (height - keptHeight) / 2
        val left = (width - keptWidth) / 2
        val kept = ByteArray(3 * keptWidth * keptHeight)
        for (row in 0 until keptHeight) {
            System.arraycopy(pixels, 3 * ((top + row) * width + left), kept, 3 * row * keptWidth, 3 * keptWidth)
        }
        return RgbImage(keptWidth, keptHeight, kept)
    }

    public companion object {
        /**
         * Reads a camera's frame, turned upright.
         *
         * @param buffer red, green, blue and alpha of each pixel, as CameraX gives them with `OUTPUT_IMAGE_FORMAT_RGBA_8888`.
         * @param rowStride bytes from a row to the next.
         * @param pixelStride bytes from a pixel to the next.
         * @param rotation degrees clockwise that turn the frame upright: 0, 90, 180 or 270.
         */
        public fun fromRgba(buffer: ByteBuffer, width: Int, height: Int, rowStride: Int, pixelStride: Int, rotation: Int): RgbImage {
            val down = (height - 1) * rowStride
            val right = (width - 1) * pixelStride
            // Where the upright image begins in the frame, and the bytes from one of its pixels to the next in its row and in its column.
            val (start, column, row) = when (rotation) {
                0 -> Triple(0, pixelStride, rowStride)
                90 -> Triple(down, -rowStride, pixelStride)
                180 -> Triple(down + right, -pixelStride, -rowStride)
                270 -> Triple(right, rowStride, -pixelStride)
                else -> throw IllegalArgumentException("a frame cannot be turned by $rotation degrees")
            }
            val turned = rotation % 180 != 0
            val outWidth = if (turned) height else width
            val outHeight = if (turned) width else height
            val pixels = ByteArray(3 * width * height)
            var to = 0
            for (y in 0 until outHeight) {
                var from = start + y * row
                for (x in 0 until outWidth) {
                    pixels[to++] = buffer.get(from)
                    pixels[to++] = buffer.get(from + 1)
                    pixels[to++] = buffer.get(from + 2)
                    from += column
                }
            }
            return RgbImage(outWidth, outHeight, pixels)
        }
    }
}
