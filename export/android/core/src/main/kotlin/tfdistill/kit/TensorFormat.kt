package tfdistill.kit

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Types of inputs and outputs that LiteRT's Kotlin API writes and reads. [integers] is the range of a type that can be quantized. */
public enum class ElementType(public val bytes: Int, public val integers: IntRange? = null) {
    FLOAT32(4),
    INT8(1, -128..127),
    UINT8(1, 0..255),
    INT32(4),
    INT64(8),
    BOOL(1),
}

/** What an input or output holds. */
public enum class Kind { IMAGE, SCORES, TENSOR, STATE }

/** What apps do to the pixels of an image, `(pixel - mean) / std`: one number, or one for each channel. */
public class Normalization(public val mean: FloatArray, public val std: FloatArray)

/**
 * One input or output of the model.
 *
 * @property name name in the signature.
 * @property shape sizes of its axes, the batch first.
 * @property type type of its elements.
 * @property scale size of one quantization step; null for a tensor that is not quantized.
 * @property zeroPoint the integer that stands for 0.0.
 * @property kind what it holds.
 * @property normalization of an image that has one.
 * @property probabilities of scores: true if they are probabilities already, false if they are logits, null if it is not known.
 */
public class TensorFormat(
    public val name: String,
    public val shape: List<Int>,
    public val type: ElementType,
    public val scale: Double? = null,
    public val zeroPoint: Int = 0,
    public val kind: Kind = Kind.TENSOR,
    public val normalization: Normalization? = null,
    public val probabilities: Boolean? = null,
) {
    /** Number of elements. */
    public val size: Int = shape.fold(1) { product, axis -> product * axis }

    /** Number of bytes. */
    public val sizeBytes: Int = size * type.bytes

    /**
     * Returns the bytes of real values, little-endian: `round(value / scale) + zero point`, clipped to the range of the type; halves are rounded to even, as in
     * NumPy and Keras. A value that is not finite has no integer: [IllegalArgumentException].
     */
    public fun quantize(values: FloatArray): ByteArray {
        require(values.size == size) { "'$name' takes $size values, not ${values.size}" }
        if (type == ElementType.FLOAT32) {
            val found = ByteBuffer.allocate(sizeBytes).order(ByteOrder.LITTLE_ENDIAN)
            found.asFloatBuffer().put(values)
            return found.array()
        }
        val range = requireNotNull(type.integers) { "'$name' is ${type.name.lowercase()}, which takes no real values" }
        return ByteArray(size) { index ->
            val value = values[index]
            require(value.isFinite()) { "'$name' gets $value at index $index" }
            val step = if (scale == null) value.toDouble() else Math.rint(value / scale) + zeroPoint
            step.coerceIn(range.first.toDouble(), range.last.toDouble()).toInt().toByte()
        }
    }

    /** Returns the real values of bytes: `(integer - zero point) * scale`. */
    public fun dequantize(bytes: ByteArray): FloatArray {
        require(bytes.size == sizeBytes) { "'$name' has $sizeBytes bytes, not ${bytes.size}" }
        val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        if (type == ElementType.FLOAT32) return FloatArray(size).also { buffer.asFloatBuffer().get(it) }
        return FloatArray(size) { index -> if (scale == null) integer(buffer, index).toFloat() else ((integer(buffer, index) - zeroPoint) * scale).toFloat() }
    }

    /** Bytes that stand for zeros: what a state begins with. */
    public fun zeros(): ByteArray = ByteArray(sizeBytes) { if (scale == null) 0 else zeroPoint.toByte() }

    /** The integer of an element, of a tensor that is not of floats. */
    internal fun integer(buffer: ByteBuffer, index: Int): Long =
        when (type) {
            ElementType.INT8 -> buffer.get(index).toLong()
            ElementType.UINT8, ElementType.BOOL -> buffer.get(index).toLong() and 0xff
            ElementType.INT32 -> buffer.getInt(4 * index).toLong()
            ElementType.INT64 -> buffer.getLong(8 * index)
            ElementType.FLOAT32 -> error("'$name' holds floats")
        }
}
