package tfdistill.kit

import kotlin.math.exp

/** A class and its score. [label] is the class's number where there are no labels. */
public class Scored(public val index: Int, public val label: String, public val score: Float)

/** Turns the scores of a model into classes. */
public object Scores {
    /**
     * Returns the classes of the highest scores, the highest first. Of equal scores the first class comes first, as with NumPy's `argmax`; NaN comes last.
     *
     * @param format the output of scores.
     * @param bytes what the model gave for it.
     * @param labels names of the classes; empty if there are none.
     * @param count how many classes to return.
     */
    public fun top(format: TensorFormat, bytes: ByteArray, labels: List<String>, count: Int): List<Scored> {
        val raw = format.dequantize(bytes)
        val scores = if (format.probabilities == false) softmax(raw) else raw
        val order = scores.indices.sortedWith(compareBy<Int> { scores[it].isNaN() }.thenByDescending { raw[it] }.thenBy { it })
        return order.take(count).map { Scored(it, labels.getOrElse(it) { _ -> "class $it" }, scores[it]) }
    }

    /** Returns the probabilities of logits. */
    public fun softmax(logits: FloatArray): FloatArray {
        val highest = logits.maxOrNull() ?: return logits
        val powers = DoubleArray(logits.size) { exp((logits[it] - highest).toDouble()) }
        val sum = powers.sum()
        return FloatArray(logits.size) { (powers[it] / sum).toFloat() }
    }
}
