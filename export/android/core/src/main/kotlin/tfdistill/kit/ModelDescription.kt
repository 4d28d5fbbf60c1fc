package tfdistill.kit

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.StandardCharsets

/** How far an output may be from the one that the file gave when the kit was made: quantization steps, or a difference of real values. */
public class Tolerance(public val steps: Int?, public val difference: Double?)

/**
 * Inputs and the outputs that the file gave for them.
 *
 * @property inputs name of each input that is no state -> path of its bytes.
 * @property outputs name of an output -> path of its bytes.
 * @property steps how many times the model runs; its states are carried over, and the bytes of the runs stand one after the other.
 */
public class TestVector(public val inputs: Map<String, String>, public val outputs: Map<String, String>, public val steps: Int)

/**
 * What `model.json` says of the model.
 *
 * @property name of the model; empty if it has none.
 * @property file path of the model in the kit.
 * @property sha256 of that file, hexadecimal.
 * @property sizeBytes size of that file.
 * @property signature key of the signature that is run; empty if the file has none.
 * @property labels names of the classes; empty if there are none.
 * @property states name of an input that is a state -> name of the output that is its next value.
 * @property tolerances name of each output -> how far it may be off.
 */
public class ModelDescription internal constructor(
    public val name: String,
    public val file: String,
    public val sha256: String,
    public val sizeBytes: Long,
    public val variant: String,
    public val signature: String,
    public val inputs: List<TensorFormat>,
    public val outputs: List<TensorFormat>,
    public val labels: List<String>,
    public val states: Map<String, String>,
    public val vectors: List<TestVector>,
    public val tolerances: Map<String, Tolerance>,
) {
    /** The input that takes an image: null unless the model has one, and nothing else but states. */
    public val image: TensorFormat? = inputs.singleOrNull { it.kind != Kind.STATE }?.takeIf { it.kind == Kind.IMAGE }

    /** The first output of scores; null if there is none. */
    public val scores: TensorFormat? = outputs.firstOrNull { it.kind == Kind.SCORES }

    public companion object {
        private const val REMAKE = "Make the kit anew: tfdistill kit MODEL.tflite --for android --out FOLDER"

        /** Reads the content of a `model.json`. Throws [KitException] naming the first thing in it that does not fit. */
        public fun read(content: ByteArray): ModelDescription {
            try {
                val text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString()
                return DescriptionReader(Fields(Json.parse(text), "")).description()
            } catch (error: CharacterCodingException) {
                throw KitException("model.json is no UTF-8 text.", REMAKE, error)
            } catch (error: IllegalArgumentException) {
                throw KitException("model.json is no JSON: ${error.message}.", REMAKE, error)
            } catch (error: Unfit) {
                throw KitException("model.json does not fit: ${error.message}.", REMAKE, error)
            }
        }
    }
}
