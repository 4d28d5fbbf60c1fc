package tfdistill.kit

/** Reads the members of `model.json` and holds them against each other. Whatever does not fit is an [Unfit]. */
internal class DescriptionReader(private val json: Fields) {
    private companion object {
        const val FORMAT = 1L
        const val LARGEST = 1L shl 28 // elements of one tensor: far more than a phone takes
        val SHA256 = Regex("[0-9a-f]{64}")
        val PATH = Regex("[A-Za-z0-9_.\\-]+(/[A-Za-z0-9_.\\-]+)*")
    }

    fun description(): ModelDescription {
        val format = json.whole("format", 0..Long.MAX_VALUE)
        if (format != FORMAT) throw Unfit("its format is $format, and this app reads format $FORMAT")
        val inputs = json.objects("inputs").map { tensor(it, setOf(Kind.IMAGE, Kind.TENSOR, Kind.STATE)) }
        val outputs = json.objects("outputs").map { tensor(it, setOf(Kind.SCORES, Kind.TENSOR, Kind.STATE)) }
        if (inputs.isEmpty() || outputs.isEmpty()) throw Unfit("it has ${inputs.size} inputs and ${outputs.size} outputs")
        for (tensors in listOf(inputs, outputs)) {
            tensors.groupBy { it.name }.values.firstOrNull { it.size > 1 }?.let { throw Unfit("'${it[0].name}' is described ${it.size} times") }
        }
        val sha256 = json.text("sha256")
        if (!SHA256.matches(sha256)) json.fail("sha256", "64 hexadecimal digits")
        val states = states(inputs, outputs)
        val vectors = json.objects("vectors").map { vector(it, inputs.map { one -> one.name } - states.keys, outputs.map { one -> one.name }) }
        return ModelDescription(
            name = if (json.has("metadata")) json.fields("metadata").textOr("name", "") else "",
            file = path(json, "file", json.text("file")),
            sha256 = sha256,
            sizeBytes = json.whole("size_bytes", 1..Int.MAX_VALUE.toLong()),
            variant = json.textOr("variant", ""),
            signature = signature(inputs, outputs),
            inputs = inputs,
            outputs = outputs,
            labels = labels(outputs),
            states = states,
            vectors = vectors,
            tolerances = tolerances(outputs.filter { one -> vectors.any { one.name in it.outputs } }),
        )
    }

    private fun tensor(fields: Fields, kinds: Set<Kind>): TensorFormat {
        val typeName = fields.text("dtype")
        val type = ElementType.entries.firstOrNull { it.name.lowercase() == typeName } ?: fields.fail("dtype", "a type that Android's LiteRT reads")
        val shape = fields.list("shape").map { it as? Long ?: fields.fail("shape", "a list of whole numbers") }
        if (shape.any { it < 1 }) fields.fail("shape", "a list of sizes of 1 and more")
        if (shape.fold(1.0) { product, axis -> product * axis } > LARGEST) fields.fail("shape", "a tensor of at most $LARGEST elements")
        val kindName = fields.text("kind")
        val kind = kinds.firstOrNull { it.name.lowercase() == kindName } ?: fields.fail("kind", "one of ${kinds.map { it.name.lowercase() }}")
        val scale = if (fields.has("scale")) fields.number("scale") else null
        if (scale != null && (scale <= 0 || type.integers == null)) fields.fail("scale", "a step above 0 of an 8-bit type")
        val zeroPoint = if (scale == null) 0 else fields.whole("zero_point", type.integers!!.first.toLong()..type.integers.last).toInt()
        if (kind == Kind.IMAGE && !isImage(shape)) fields.fail("shape", "(1, height, width, 1 or 3 channels)")
        if (kind == Kind.IMAGE && type != ElementType.FLOAT32 && type.integers == null) fields.fail("dtype", "a type that takes pixels")
        val activation = if (fields.has("activation")) fields.text("activation") else null
        return TensorFormat(
            name = fields.text("name"),
            shape = shape.map { it.toInt() },
            type = type,
            scale = scale,
            zeroPoint = zeroPoint,
            kind = kind,
            normalization = if (fields.has("normalization")) normalization(fields.fields("normalization"), shape.last().toInt()) else null,
            probabilities = if (activation == null) null else activation == "softmax",
        )
    }

    private fun isImage(shape: List<Long>) = shape.size == 4 && shape[0] == 1L && (shape[3] == 1L || shape[3] == 3L)

    private fun normalization(fields: Fields, channels: Int): Normalization {
        val mean = fields.numbers("mean")
        val std = fields.numbers("std")
        if (mean.size != 1 && mean.size != channels) fields.fail("mean", "one number, or one for each of $channels channels")
        if (std.size != mean.size || std.any { it == 0f }) fields.fail("std", "as many numbers as mean, none of them 0")
        return Normalization(mean, std)
    }

    private fun signature(inputs: List<TensorFormat>, outputs: List<TensorFormat>): String {
        if (!json.has("signatures")) return ""
        val signatures = json.fields("signatures")
        val matching = signatures.names().filter { key ->
            val one = signatures.fields(key)
            one.textsByName("inputs").keys == inputs.map { it.name }.toSet() && one.textsByName("outputs").keys == outputs.map { it.name }.toSet()
        }
        if (matching.isEmpty() && signatures.names().isNotEmpty()) throw Unfit("no signature has the inputs and outputs that it describes")
        return matching.firstOrNull { it == "serving_default" } ?: matching.firstOrNull() ?: ""
    }

    private fun labels(outputs: List<TensorFormat>): List<String> {
        if (!json.has("labels")) return emptyList()
        val labels = json.texts("labels")
        val scores = outputs.firstOrNull { it.kind == Kind.SCORES } ?: throw Unfit("it has labels, and no output of scores")
        val classes = scores.shape.lastOrNull()
        if (labels.size != classes) throw Unfit("it has ${labels.size} labels, and '${scores.name}' has $classes classes")
        return labels
    }

    private fun states(inputs: List<TensorFormat>, outputs: List<TensorFormat>): Map<String, String> {
        val pairs = if (json.has("states")) json.objects("states").associate { it.text("input") to it.text("output") } else emptyMap()
        for ((name, next) in pairs) {
            val input = inputs.firstOrNull { it.name == name } ?: throw Unfit("the state '$name' is no input")
            val output = outputs.firstOrNull { it.name == next } ?: throw Unfit("the state '$next' is no output")
            val same = input.shape == output.shape && input.type == output.type && input.scale == output.scale && input.zeroPoint == output.zeroPoint
            if (!same) throw Unfit("the state '$name' has another shape, type or scale than '$next'")
        }
        (inputs.filter { it.kind == Kind.STATE }.map { it.name } - pairs.keys).firstOrNull()?.let { throw Unfit("no output is the next value of the state '$it'") }
        return pairs
    }

    private fun vector(fields: Fields, inputs: List<String>, outputs: List<String>): TestVector {
        val given = fields.textsByName("inputs")
        if (given.keys != inputs.toSet()) fields.fail("inputs", "the inputs ${inputs.sorted()}")
        val wanted = fields.textsByName("outputs")
        if (wanted.isEmpty() || !outputs.containsAll(wanted.keys)) fields.fail("outputs", "some of the outputs ${outputs.sorted()}")
        (given.values + wanted.values).forEach { path(fields, "inputs", it) }
        return TestVector(given, wanted, fields.whole("steps", 1..100_000L).toInt())
    }

    private fun tolerances(outputs: List<TensorFormat>): Map<String, Tolerance> {
        if (outputs.isEmpty()) return emptyMap()
        val tolerance = json.fields("tolerance")
        return outputs.associate { output ->
            val one = tolerance.fields(output.name)
            if (one.has("steps") == one.has("abs")) tolerance.fail(output.name, "an object with either steps or abs")
            if (one.has("steps") && output.type == ElementType.FLOAT32) one.fail("steps", "a tolerance of floats, which have no steps")
            val found =
                if (one.has("steps")) Tolerance(one.whole("steps", 0..255L).toInt(), null)
                else Tolerance(null, one.number("abs").also { if (it < 0) one.fail("abs", "a difference of 0 and more") })
            output.name to found
        }
    }

    /** A path inside the kit: a file from elsewhere shall not have another one read. */
    private fun path(fields: Fields, name: String, found: String): String {
        if (!PATH.matches(found) || found.split("/").any { it == ".." || it == "." }) fields.fail(name, "a path inside the kit")
        return found
    }
}
