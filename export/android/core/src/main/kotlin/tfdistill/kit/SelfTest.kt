package tfdistill.kit

import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.abs

/** Runs the model once: name -> bytes of every input to name -> bytes of every output, little-endian. */
public fun interface Runner {
    public fun run(inputs: Map<String, ByteArray>): Map<String, ByteArray>
}

/**
 * What one output was in one test vector.
 *
 * @property vector number of the test vector, from 0.
 * @property worst the largest difference from the output that the file gave when the kit was made.
 * @property allowed the largest difference that is tolerated.
 * @property unit of both: `steps` of quantization, or `abs` for real values.
 * @property sameClass whether the highest score is that of the same class, in every run; null for an output that is no scores.
 */
public class Compared(
    public val vector: Int,
    public val output: String,
    public val worst: Double,
    public val allowed: Double,
    public val unit: String,
    public val sameClass: Boolean?,
) {
    /** Whether the difference is tolerated. */
    public val passed: Boolean get() = worst <= allowed
}

/** What a self-test found. */
public class SelfTestReport(public val compared: List<Compared>) {
    /** Whether all outputs are within their tolerances. */
    public val passed: Boolean get() = compared.all { it.passed }

    /** Whether every highest score is that of the same class: what to ask of hardware that computes with other rounding than the desk. */
    public val sameClasses: Boolean get() = compared.all { it.sameClass ?: true }

    /** A line for each output that differs, or one that says that all are equal. */
    override fun toString(): String {
        val vectors = compared.distinctBy { it.vector }.size
        val off = compared.filter { it.worst > 0 }
        if (off.isEmpty()) return "All outputs of $vectors test vectors are equal to those of the desk."
        return off.joinToString("\n") { "Vector ${it.vector}, ${it.output}: ${it.worst} ${it.unit} off (at most ${it.allowed})${if (it.passed) "" else ": failed"}" }
    }
}

/**
 * Runs a model on the kit's test vectors and compares its outputs with those that the file gave when the kit was made.
 *
 * @param description of the model.
 * @param open opens a file of the kit by its path; an [IOException] if it is not there.
 */
public class SelfTest(private val description: ModelDescription, private val open: (String) -> InputStream) {
    private companion object {
        const val REMAKE = "Copy all files of the kit again, or make it anew: tfdistill kit MODEL.tflite --for android --out FOLDER"
    }

    /** Throws [KitException] if the model is another one than that of the test vectors. */
    public fun requireModel() {
        val digest = MessageDigest.getInstance("SHA-256")
        var size = 0L
        reading(description.file) { stream ->
            val buffer = ByteArray(1 shl 16)
            while (true) {
                val count = stream.read(buffer)
                if (count < 0) break
                digest.update(buffer, 0, count)
                size += count
            }
        }
        val found = digest.digest().joinToString("") { "%02x".format(it) }
        if (size != description.sizeBytes || found != description.sha256) {
            val wanted = "${description.sizeBytes} bytes, SHA-256 ${description.sha256.take(12)}"
            throw KitException("${description.file} has $size bytes, SHA-256 ${found.take(12)}, and model.json and the test vectors are those of a file of $wanted.", REMAKE)
        }
    }

    /** Runs all test vectors. Throws [KitException] if the model or a vector is not the one that `model.json` describes. */
    public fun run(runner: Runner): SelfTestReport {
        if (description.vectors.isEmpty()) throw KitException("The kit has no test vectors.", REMAKE)
        requireModel()
        return SelfTestReport(description.vectors.flatMapIndexed { number, vector -> compare(number, vector, runner) })
    }

    private fun compare(number: Int, vector: TestVector, runner: Runner): List<Compared> {
        val inputs = description.inputs.filter { it.name in vector.inputs }.associate { it.name to runs(it, vector.inputs.getValue(it.name), vector.steps) }
        val wanted = description.outputs.filter { it.name in vector.outputs }.associateWith { runs(it, vector.outputs.getValue(it.name), vector.steps) }
        val sequence = Sequence(description, runner)
        val found = (0 until vector.steps).map { step -> sequence.step(inputs.mapValues { (_, bytes) -> bytes[step] }) }
        return wanted.map { (format, bytes) ->
            val given = found.map { it.getValue(format.name) }
            val tolerance = description.tolerances.getValue(format.name)
            Compared(
                vector = number,
                output = format.name,
                worst = bytes.indices.maxOf { difference(format, bytes[it], given[it], tolerance.steps != null) },
                allowed = tolerance.steps?.toDouble() ?: tolerance.difference!!,
                unit = if (tolerance.steps != null) "steps" else "abs",
                sameClass = if (format.kind != Kind.SCORES) null else bytes.indices.all { first(format, bytes[it]) == first(format, given[it]) },
            )
        }
    }

    private fun first(format: TensorFormat, bytes: ByteArray) = Scores.top(format, bytes, emptyList(), 1).single().index

    private fun difference(format: TensorFormat, wanted: ByteArray, given: ByteArray, inSteps: Boolean): Double {
        if (given.size != format.sizeBytes) return Double.POSITIVE_INFINITY
        if (!inSteps) {
            val (a, b) = format.dequantize(wanted) to format.dequantize(given)
            // A NaN equals nothing, not even the NaN of the desk.
            return a.indices.maxOf { if (a[it].isNaN() || b[it].isNaN()) Double.POSITIVE_INFINITY else if (a[it] == b[it]) 0.0 else abs(a[it].toDouble() - b[it]) }
        }
        val (a, b) = ByteBuffer.wrap(wanted).order(ByteOrder.LITTLE_ENDIAN) to ByteBuffer.wrap(given).order(ByteOrder.LITTLE_ENDIAN)
        return (0 until format.size).maxOf { abs(format.integer(a, it) - format.integer(b, it)) }.toDouble()
    }

    /** The bytes of a tensor of a test vector, one array for each run. */
    private fun runs(format: TensorFormat, path: String, steps: Int): List<ByteArray> {
        val content = reading(path) { it.readBytes() }
        if (content.size != format.sizeBytes * steps) {
            throw KitException("$path has ${content.size} bytes, and '${format.name}' takes ${format.sizeBytes} in each of $steps runs.", REMAKE)
        }
        return List(steps) { content.copyOfRange(it * format.sizeBytes, (it + 1) * format.sizeBytes) }
    }

    private fun <T> reading(path: String, use: (InputStream) -> T): T =
        try {
            open(path).use(use)
        } catch (error: IOException) {
            throw KitException("$path cannot be read: ${error.message}.", REMAKE, error)
        }
}
