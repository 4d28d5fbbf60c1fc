package tfdistill.kit

/** What does not fit in model.json. [ModelDescription.read] makes a [KitException] of it. */
internal class Unfit(message: String) : Exception(message)

/** The members of one object of model.json, read by name and type. [where] is the object's own place, such as `inputs[0]`. */
internal class Fields(value: Any?, private val where: String) {
    private val members: Map<*, *> = value as? Map<*, *> ?: throw Unfit("${where.ifEmpty { "it" }} is ${shown(value)}, not an object")

    private fun place(name: String) = if (where.isEmpty()) name else "$where.$name"

    fun fail(name: String, what: String): Nothing = throw Unfit("${place(name)} is ${shown(members[name])}, not $what")

    fun has(name: String): Boolean = members[name] != null

    fun text(name: String): String = members[name] as? String ?: fail(name, "a text")

    fun textOr(name: String, other: String): String = if (has(name)) text(name) else other

    fun whole(name: String, range: LongRange): Long {
        val found = members[name] as? Long ?: fail(name, "a whole number")
        return if (found in range) found else fail(name, "a number from ${range.first} to ${range.last}")
    }

    fun number(name: String): Double = (members[name] as? Number)?.toDouble() ?: fail(name, "a number")

    fun texts(name: String): List<String> = list(name).map { it as? String ?: fail(name, "a list of texts") }

    fun numbers(name: String): FloatArray = list(name).map { (it as? Number ?: fail(name, "a list of numbers")).toFloat() }.toFloatArray()

    fun list(name: String): List<*> = members[name] as? List<*> ?: fail(name, "a list")

    fun objects(name: String): List<Fields> = list(name).mapIndexed { index, one -> Fields(one, "${place(name)}[$index]") }

    fun fields(name: String): Fields = Fields(members[name], place(name))

    fun textsByName(name: String): Map<String, String> {
        val found = members[name] as? Map<*, *> ?: fail(name, "an object")
        return found.entries.associate { (key, value) -> key as String to (value as? String ?: fail(name, "an object of texts")) }
    }

    fun names(): List<String> = members.keys.map { it as String }

    companion object {
        private const val LONGEST = 40

        /** A value as the message shows it: short, whatever stands in the file. */
        fun shown(value: Any?): String {
            val text = if (value is String) "'$value'" else "$value"
            return if (text.length > LONGEST) text.take(LONGEST) + "..." else text
        }
    }
}
