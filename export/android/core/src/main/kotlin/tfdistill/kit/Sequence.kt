package tfdistill.kit

/**
 * Runs the model again and again, with the states of each run as those of the next. A model without states runs each time anew.
 *
 * @param description of the model.
 * @param runner runs it once.
 */
public class Sequence(private val description: ModelDescription, private val runner: Runner) {
    private val states = HashMap<String, ByteArray>()

    init {
        restart()
    }

    /** Begins anew: all states are zero. */
    public fun restart() {
        for (input in description.inputs) if (input.name in description.states) states[input.name] = input.zeros()
    }

    /** Returns name -> bytes of every output. [inputs] has the bytes of every input that is no state. */
    public fun step(inputs: Map<String, ByteArray>): Map<String, ByteArray> {
        val found = runner.run(inputs + states)
        for ((input, output) in description.states) states[input] = found.getValue(output)
        return found
    }
}
