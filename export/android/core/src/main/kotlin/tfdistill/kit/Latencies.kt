package tfdistill.kit

/** The times of the last runs. Not thread-safe: the app adds and reads on the thread that runs the model. */
public class Latencies(private val kept: Int = 60) {
    private val times = ArrayDeque<Double>()

    /** Adds the time of a run in milliseconds. */
    public fun add(milliseconds: Double) {
        if (times.size == kept) times.removeFirst()
        times.addLast(milliseconds)
    }

    /** Forgets all runs: those of another accelerator say nothing of the next one. */
    public fun clear(): Unit = times.clear()

    /** Returns the median; null before the first run. */
    public fun median(): Double? {
        val sorted = times.sorted()
        val half = sorted.size / 2
        return if (sorted.isEmpty()) null else if (sorted.size % 2 == 1) sorted[half] else (sorted[half - 1] + sorted[half]) / 2
    }
}
