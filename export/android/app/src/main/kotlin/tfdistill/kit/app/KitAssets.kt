package tfdistill.kit.app

import android.content.res.AssetManager
import java.io.InputStream
import tfdistill.kit.ModelDescription

/** The kit's files in the app: the model, `model.json`, labels and test vectors, which the build copies into the assets. */
internal class KitAssets(val manager: AssetManager) {
    fun open(path: String): InputStream = manager.open(path)

    fun description(): ModelDescription = ModelDescription.read(open("model.json").use { it.readBytes() })
}
