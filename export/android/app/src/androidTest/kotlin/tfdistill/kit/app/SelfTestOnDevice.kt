package tfdistill.kit.app

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import com.google.ai.edge.litert.Accelerator
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith
import tfdistill.kit.KitException
import tfdistill.kit.RgbImage

/** What only a device can show: LiteRT on its processor and its GPU gives what the file gave on the desk. */
@RunWith(AndroidJUnit4::class)
class SelfTestOnDevice {
    private val assets = KitAssets(InstrumentationRegistry.getInstrumentation().targetContext.assets)

    @Test
    fun outputsOnTheCpuAreWithinTheTolerancesOfTheKit() {
        Session(assets).use { session ->
            val report = session.selfTest()
            assertTrue(report.toString(), report.passed)
            assertEquals(Accelerator.CPU, session.accelerator)
        }
    }

    @Test
    fun classesOnTheGpuAreThoseOfTheDesk() {
        Session(assets).use { session ->
            try {
                session.runOn(Accelerator.GPU)
            } catch (error: KitException) {
                assumeTrue(error.happened, false) // no GPU that takes every operation: the test does not apply
            }
            assertEquals(Accelerator.GPU, session.accelerator)
            val report = session.selfTest()
            assertTrue(report.toString(), report.sameClasses)
        }
    }

    @Test
    fun aFrameOfAnySizeIsClassified() {
        Session(assets).use { session ->
            assumeTrue("the model takes no image", session.description.image != null)
            val seen = session.classify(RgbImage(640, 480, ByteArray(3 * 640 * 480) { it.toByte() }))
            assertNotNull(seen)
            assertTrue(seen!!.modelMs > 0)
        }
    }
}
