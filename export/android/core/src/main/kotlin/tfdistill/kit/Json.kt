package tfdistill.kit

/**
 * Reads JSON as RFC 8259 defines it, and nothing beside it.
 *
 * Android's own reader (`org.json`) is not there on the JVM, and takes texts that are no JSON. Objects become maps in the order of the text, arrays become
 * lists, whole numbers `Long` where they fit, and other numbers `Double`.
 */
internal object Json {
    private const val DEEPEST = 32

    /** Returns the value of a text. Throws [IllegalArgumentException] with the position of what is no JSON. */
    fun parse(text: String): Any? {
        val reader = Reader(text)
        reader.skipSpace()
        val value = reader.value(0)
        reader.skipSpace()
        if (!reader.atEnd()) reader.fail("something follows the value")
        return value
    }

    private class Reader(private val text: String) {
        private var at = 0

        fun atEnd() = at == text.length

        fun fail(what: String): Nothing {
            val line = text.substring(0, at).count { it == '\n' } + 1
            throw IllegalArgumentException("$what at line $line, character $at")
        }

        fun skipSpace() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun peek(): Char = if (at < text.length) text[at] else fail("the text ends too early")

        private fun take(expected: Char) {
            if (peek() != expected) fail("'$expected' is missing")
            at++
        }

        fun value(depth: Int): Any? {
            if (depth > DEEPEST) fail("values are nested more than $DEEPEST times")
            return when (val next = peek()) {
                '{' -> members(depth)
                '[' -> elements(depth)
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> if (next == '-' || next in '0'..'9') number() else fail("'$next' begins no value")
            }
        }

        private fun word(name: String, value: Boolean?): Boolean? {
            if (!text.startsWith(name, at)) fail("a value is missing")
            at += name.length
            return value
        }

        private fun members(depth: Int): Map<String, Any?> {
            val found = LinkedHashMap<String, Any?>()
            listed('{', '}') {
                val name = string()
                skipSpace()
                take(':')
                skipSpace()
                if (name in found) fail("'$name' is there twice")
                found[name] = value(depth + 1)
            }
            return found
        }

        private fun elements(depth: Int): List<Any?> {
            val found = ArrayList<Any?>()
            listed('[', ']') { found.add(value(depth + 1)) }
            return found
        }

        private fun listed(first: Char, last: Char, one: () -> Unit) {
            take(first)
            skipSpace()
            if (peek() == last) {
                at++
                return
            }
            while (true) {
                one()
                skipSpace()
                if (peek() == last) break
                take(',')
                skipSpace()
            }
            at++
        }

        private fun string(): String {
            take('"')
            val found = StringBuilder()
            while (true) {
                val next = peek()
                at++
                when {
                    next == '"' -> return found.toString()
                    next < ' ' -> fail("a control character stands in a string")
                    next == '\\' -> found.append(escaped())
                    else -> found.append(next)
                }
            }
        }

        private fun escaped(): Char {
            val next = peek()
            at++
            return when (next) {
                '"', '\\', '/' -> next
                'b' -> '\b'
                'f' -> '\u000c'
                'n' -> '\n'
                'r' -> '\r'
                't' -> '\t'
                'u' -> {
                    val digits = text.substring(at, minOf(at + 4, text.length))
                    if (!HEXADECIMAL.matches(digits)) fail("'\\u' needs four hexadecimal digits")
                    at += 4
                    digits.toInt(16).toChar()
                }
                else -> fail("'\\$next' is no escape")
            }
        }

        private fun number(): Number {
            val found = NUMBER.matchAt(text, at)?.value ?: fail("a number is incomplete")
            at += found.length
            val value = found.toDouble()
            if (value.isInfinite()) fail("$found is too large")
            return if (found.any { it in ".eE" }) value else found.toLongOrNull() ?: value
        }
    }

    private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    private val HEXADECIMAL = Regex("[0-9a-fA-F]{4}")
}
