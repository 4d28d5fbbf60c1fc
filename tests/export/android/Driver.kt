package tfdistill.kit

import java.io.DataInputStream
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

/**
 * Runs the jobs of a JSON file, for the tests: each a list of a name and arguments. Prints a line for each, `ok RESULT` or `refused MESSAGE | REMEDY`.
 */
public fun main(arguments: Array<String>) {
    val jobs = Json.parse(File(arguments[0]).readText()) as List<*>
    for (job in jobs) println(answer(job as List<*>).replace("\n", "\\n"))
}

private fun answer(job: List<*>): String =
    try {
        "ok " + run(job[0] as String, job.drop(1))
    } catch (error: KitException) {
        "refused ${error.happened} | ${error.fix}"
    } catch (error: IllegalArgumentException) {
        "refused ${error.message}"
    }

private fun run(name: String, given: List<*>): String {
    fun text(index: Int) = given[index] as String
    fun whole(index: Int) = (given[index] as Long).toInt()
    fun file(index: Int) = File(text(index))
    fun description() = ModelDescription.read(file(0).readBytes())
    return when (name) {
        "json" -> "${Json.parse(text(0))}"
        "describe" -> described(description())
        "preprocess" -> {
            val image = RgbImage(whole(2), whole(3), file(1).readBytes())
            val preprocessing = Preprocessing(description().image!!, given[4] as Boolean)
            file(5).writeBytes(floats(preprocessing.values(image)))
            file(6).writeBytes(preprocessing.bytes(image))
            ""
        }
        "rgba" -> {
            val image = RgbImage.fromRgba(ByteBuffer.wrap(file(0).readBytes()), whole(1), whole(2), whole(3), whole(4), whole(5))
            file(6).writeBytes(image.pixels)
            "${image.width} ${image.height}"
        }
        "quantize" -> {
            val values = FloatArray(description().inputs[0].size)
            ByteBuffer.wrap(file(1).readBytes()).order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values)
            file(2).writeBytes(description().inputs[0].quantize(values))
            ""
        }
        "dequantize" -> {
            file(2).writeBytes(floats(description().inputs[0].dequantize(file(1).readBytes())))
            ""
        }
        "top" -> description().let { one ->
            Scores.top(one.scores!!, file(1).readBytes(), one.labels, whole(2)).joinToString("; ") { "${it.index} ${it.label} ${it.score}" }
        }
        "median" -> Latencies(whole(0)).also { (given[1] as List<*>).forEach { time -> it.add((time as Number).toDouble()) } }.median().toString()
        "selftest" -> selfTest(file(0), given.drop(1).map { it as String })
        else -> error("no job is called $name")
    }
}

private fun floats(values: FloatArray): ByteArray = TensorFormat("", listOf(values.size), ElementType.FLOAT32).quantize(values)

private fun described(one: ModelDescription): String {
    val tensors = (one.inputs + one.outputs).joinToString(",") { "${it.name}:${it.type}${it.shape}${it.kind}${it.scale}+${it.zeroPoint}" }
    return "${one.name}|${one.signature}|${one.image?.name}|${one.scores?.name}|$tensors|${one.labels}|${one.states}|${one.vectors.size}"
}

/** Runs the self-test of a kit's folder on a process that reads the bytes of all inputs, and answers with those of all outputs, again and again. */
private fun selfTest(kit: File, command: List<String>): String {
    val description = ModelDescription.read(File(kit, "model.json").readBytes())
    val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    try {
        val answers = DataInputStream(process.inputStream)
        val report = SelfTest(description) { path -> File(kit, path).inputStream() }.run { inputs ->
            for (input in description.inputs) process.outputStream.write(inputs.getValue(input.name))
            process.outputStream.flush()
            description.outputs.associate { output -> output.name to ByteArray(output.sizeBytes).also(answers::readFully) }
        }
        return "${report.passed} ${report.sameClasses} $report"
    } catch (error: IOException) {
        throw IllegalArgumentException("the runner ended: $error")
    } finally {
        process.destroy()
    }
}
