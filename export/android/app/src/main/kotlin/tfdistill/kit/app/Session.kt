package tfdistill.kit.app

import android.os.SystemClock
import com.google.ai.edge.litert.Accelerator
import tfdistill.kit.KitException
import tfdistill.kit.Latencies
import tfdistill.kit.Preprocessing
import tfdistill.kit.RgbImage
import tfdistill.kit.Scores
import tfdistill.kit.SelfTest
import tfdistill.kit.SelfTestReport
import tfdistill.kit.Sequence

/** What is seen of one frame: the best classes, and the medians of the last runs in milliseconds. */
internal class Seen(val classes: List<Pair<String, Float>>, val modelMs: Double, val imageMs: Double)

/** The model as the app uses it, all on one thread: the engine of the chosen accelerator, and what is measured of it. */
internal class Session(private val assets: KitAssets) : AutoCloseable {
    val description = assets.description()
    private val preprocessing = description.image?.let { Preprocessing(it, CROP) }
    private val selfTest = SelfTest(description, assets::open)
    private val modelTimes = Latencies()
    private val imageTimes = Latencies()
    private var engine: Engine
    private var sequence: Sequence

    init {
        selfTest.requireModel()
        engine = Engine.open(assets.manager, description, Accelerator.CPU)
        sequence = Sequence(description, engine)
    }

    val accelerator: Accelerator get() = engine.accelerator

    /** Runs on another accelerator from now on. Throws [KitException] if that does not run the model; the one before then goes on. */
    fun runOn(accelerator: Accelerator) {
        val next = Engine.open(assets.manager, description, accelerator)
        engine.close()
        engine = next
        sequence = Sequence(description, next)
        modelTimes.clear()
        imageTimes.clear()
    }

    /** Runs the kit's test vectors on the accelerator. */
    fun selfTest(): SelfTestReport = selfTest.run(engine)

    /** Classifies a frame; null for a model that takes no image. */
    fun classify(image: RgbImage): Seen? {
        val input = description.image ?: return null
        val start = SystemClock.elapsedRealtimeNanos()
        val bytes = preprocessing!!.bytes(image)
        val ready = SystemClock.elapsedRealtimeNanos()
        val outputs = sequence.step(mapOf(input.name to bytes))
        imageTimes.add((ready - start) / NANOSECONDS)
        modelTimes.add((SystemClock.elapsedRealtimeNanos() - ready) / NANOSECONDS)
        val classes = description.scores?.let { Scores.top(it, outputs.getValue(it.name), description.labels, SHOWN) }.orEmpty()
        return Seen(classes.map { it.label to it.score }, modelTimes.median()!!, imageTimes.median()!!)
    }

    override fun close(): Unit = engine.close()

    private companion object {
        /** Whether to keep only the middle of a frame, in the proportions of the model's input. Set it to what the training images were given. */
        const val CROP = false
        const val SHOWN = 3
        const val NANOSECONDS = 1e6 // in a millisecond
    }
}
