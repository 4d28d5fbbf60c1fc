package tfdistill.kit

import kotlin.math.ceil
import kotlin.math.floor

/**
 * Makes the bytes of an image input from an image of any size: gray if the model has one channel, resized, normalized, quantized.
 *
 * Sizes are changed as Keras's `Resizing` layer and `keras.ops.image.resize` do it: bilinear, without antialiasing. Gray is that of
 * `keras.utils.load_img(color_mode="grayscale")`.
 *
 * @param input the input, of shape (1, height, width, channels).
 * @param crop whether to keep only the middle of the image, in the input's proportions, as `crop_to_aspect_ratio=True` does; else the image is distorted.
 */
public class Preprocessing(private val input: TensorFormat, private val crop: Boolean = false) {
    private val height = input.shape[1]
    private val width = input.shape[2]
    private val channels = input.shape[3]

    /** Returns the bytes of the input. */
    public fun bytes(image: RgbImage): ByteArray = input.quantize(values(image))

    /** Returns the real values of the input: rows of pixels of channels. */
    public fun values(image: RgbImage): FloatArray {
        val shown = if (crop) image.croppedTo(width, height) else image
        return normalized(resized(if (channels == 1) gray(shown) else shown.pixels, shown.width, shown.height))
    }

    private fun gray(image: RgbImage): ByteArray =
        ByteArray(image.width * image.height) { pixel ->
            val red = image.pixels[3 * pixel].toInt() and 0xff
            val green = image.pixels[3 * pixel + 1].toInt() and 0xff
            val blue = image.pixels[3 * pixel + 2].toInt() and 0xff
            ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16).toByte() // ITU-R 601 luma in 16 bits, as in Pillow
        }

    private fun resized(pixels: ByteArray, fromWidth: Int, fromHeight: Int): FloatArray {
        val rows = Axis(fromHeight, height)
        val columns = Axis(fromWidth, width)
        val found = FloatArray(height * width * channels)
        var to = 0
        for (row in 0 until height) {
            val above = rows.lower[row] * fromWidth
            val below = rows.upper[row] * fromWidth
            for (column in 0 until width) {
                for (channel in 0 until channels) {
                    fun at(start: Int, x: Int) = (pixels[(start + x) * channels + channel].toInt() and 0xff).toFloat()
                    val left = columns.lower[column]
                    val right = columns.upper[column]
                    val top = at(above, left) + (at(above, right) - at(above, left)) * columns.share[column]
                    val bottom = at(below, left) + (at(below, right) - at(below, left)) * columns.share[column]
                    found[to++] = top + (bottom - top) * rows.share[row]
                }
            }
        }
        return found
    }

    /** Between which two of [from] pixels each of [to] pixels lies, and how near it is to the second: half a pixel is the middle of the first. */
    private class Axis(from: Int, to: Int) {
        val lower = IntArray(to)
        val upper = IntArray(to)
        val share = FloatArray(to)

        init {
            val scale = from.toFloat() / to
            for (index in 0 until to) {
                val place = (index + 0.5f) * scale - 0.5f
                lower[index] = floor(place).toInt().coerceAtLeast(0)
                upper[index] = ceil(place).toInt().coerceAtMost(from - 1)
                share[index] = place - floor(place)
            }
        }
    }

    private fun normalized(values: FloatArray): FloatArray {
        val (mean, std) = input.normalization?.let { it.mean to it.std } ?: return values
        for (index in values.indices) {
            val channel = if (mean.size == 1) 0 else index % channels
            values[index] = (values[index] - mean[channel]) / std[channel]
        }
        return values
    }
}
