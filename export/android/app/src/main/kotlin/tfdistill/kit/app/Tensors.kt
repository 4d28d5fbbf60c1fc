package tfdistill.kit.app

import com.google.ai.edge.litert.TensorBuffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import tfdistill.kit.ElementType
import tfdistill.kit.TensorFormat

private fun littleEndian(bytes: ByteArray): ByteBuffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)

/** Writes the bytes of a tensor. LiteRT's Kotlin API takes arrays of each type, and the bytes of uint8 as those of int8. */
internal fun TensorBuffer.write(format: TensorFormat, bytes: ByteArray) {
    val buffer = littleEndian(bytes)
    when (format.type) {
        ElementType.FLOAT32 -> writeFloat(FloatArray(format.size).also { buffer.asFloatBuffer().get(it) })
        ElementType.INT8, ElementType.UINT8 -> writeInt8(bytes)
        ElementType.INT32 -> writeInt(IntArray(format.size).also { buffer.asIntBuffer().get(it) })
        ElementType.INT64 -> writeLong(LongArray(format.size).also { buffer.asLongBuffer().get(it) })
        ElementType.BOOL -> writeBoolean(BooleanArray(format.size) { bytes[it] != 0.toByte() })
    }
}

/** Reads the bytes of a tensor. */
internal fun TensorBuffer.read(format: TensorFormat): ByteArray {
    val buffer = ByteBuffer.allocate(format.sizeBytes).order(ByteOrder.LITTLE_ENDIAN)
    when (format.type) {
        ElementType.FLOAT32 -> buffer.asFloatBuffer().put(readFloat())
        ElementType.INT8, ElementType.UINT8 -> return readInt8()
        ElementType.INT32 -> buffer.asIntBuffer().put(readInt())
        ElementType.INT64 -> buffer.asLongBuffer().put(readLong())
        ElementType.BOOL -> for (value in readBoolean()) buffer.put(if (value) 1 else 0)
    }
    return buffer.array()
}
