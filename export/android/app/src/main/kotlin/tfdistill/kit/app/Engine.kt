package tfdistill.kit.app

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import tfdistill.kit.KitException
import tfdistill.kit.ModelDescription
import tfdistill.kit.Runner

/**
 * The model, compiled for one accelerator.
 *
 * It is compiled for [accelerator] alone. LiteRT then refuses a model of which the accelerator does not take every operation, and a phone that does not have
 * the accelerator. With the CPU allowed beside it LiteRT does neither: it runs on the CPU without a word, and nothing in its Kotlin API tells. So an engine of
 * the GPU that has been made runs on the GPU. Not thread-safe.
 */
internal class Engine(assets: AssetManager, private val description: ModelDescription, val accelerator: Accelerator) : Runner, AutoCloseable {
    private val model = CompiledModel.create(assets, description.file, CompiledModel.Options(accelerator))
    private val inputs = orClosed { description.inputs.associateWith { model.createInputBuffer(it.name, description.signature) } }
    private val outputs = orClosed { description.outputs.associateWith { model.createOutputBuffer(it.name, description.signature) } }
    private val inputsByName = inputs.mapKeys { (format, _) -> format.name }
    private val outputsByName = outputs.mapKeys { (format, _) -> format.name }

    /** Runs the model and reads all its outputs: a GPU is not done when `run` returns, and has to be when the outputs have been read. */
    override fun run(inputs: Map<String, ByteArray>): Map<String, ByteArray> {
        for ((format, buffer) in this.inputs) buffer.write(format, inputs.getValue(format.name))
        model.run(inputsByName, outputsByName, description.signature)
        return outputs.entries.associate { (format, buffer) -> format.name to buffer.read(format) }
    }

    /** An engine that cannot be made keeps no memory of the phone. */
    private fun <T> orClosed(make: () -> T): T =
        try {
            make()
        } catch (error: LiteRtException) {
            model.close()
            throw error
        }

    override fun close() {
        for (buffer in inputs.values + outputs.values) buffer.close()
        model.close()
    }

    companion object {
        /** Makes the engine of an accelerator. Throws [KitException] if it cannot run the model. */
        fun open(assets: AssetManager, description: ModelDescription, accelerator: Accelerator): Engine =
            try {
                Engine(assets, description, accelerator)
            } catch (error: LiteRtException) {
                val fix = if (accelerator == Accelerator.CPU) "Install the LiteRT version of gradle/libs.versions.toml." else "Run it on the CPU."
                throw KitException("The $accelerator of this phone does not run the model: ${error.message}", fix, error)
            } catch (error: LinkageError) {
                throw KitException("LiteRT has no library for this phone's processor: ${error.message}", "Use a phone with a 64-bit Android.", error)
            }
    }
}
