package tfdistill.kit.app

import android.Manifest
import android.content.pm.PackageManager
import android.os.Bundle
import android.widget.Button
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.LiteRtException
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import tfdistill.kit.KitException
import tfdistill.kit.RgbImage

/** The one screen: what the camera shows, the label that the model gives it, how long that takes on which accelerator, and the self-test. */
class MainActivity : ComponentActivity() {
    // Everything that touches the model runs here, from beginning to end: LiteRT's objects take one thread at a time, and OpenGL only that which began.
    // A frame that comes when the screen is closed is dropped.
    private val worker = ThreadPoolExecutor(1, 1, 0, TimeUnit.SECONDS, LinkedBlockingQueue(), ThreadPoolExecutor.DiscardPolicy())
    private var session: Session? = null // used on the worker alone
    private val label by lazy { findViewById<TextView>(R.id.label) }
    private val others by lazy { findViewById<TextView>(R.id.others) }
    private val speed by lazy { findViewById<TextView>(R.id.speed) }
    private val message by lazy { findViewById<TextView>(R.id.message) }
    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) startCamera() else message.setText(R.string.no_permission)
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        findViewById<Button>(R.id.accelerator).setOnClickListener { work { switchAccelerator(it) } }
        findViewById<Button>(R.id.selftest).setOnClickListener { work { runSelfTest(it) } }
        background {
            val opened = Session(KitAssets(assets))
            session = opened
            showAccelerator(opened)
            runSelfTest(opened)
            runOnUiThread { if (opened.description.image == null) message.append(getString(R.string.no_image)) else askForCamera() }
        }
    }

    override fun onDestroy() {
        super.onDestroy()
        background {
            session?.close()
            session = null
        }
        worker.shutdown()
    }

    /** Runs on the worker. */
    private fun background(task: () -> Unit) = worker.execute { guarded(task) }

    /** Shows what goes wrong. */
    private fun guarded(task: () -> Unit) {
        try {
            task()
        } catch (error: KitException) {
            show("${error.happened}\n${error.fix}")
        } catch (error: LiteRtException) {
            show(getString(R.string.not_run, error.message))
        }
    }

    private fun work(task: (Session) -> Unit) = background { session?.let(task) }

    private fun show(text: String) = runOnUiThread { message.text = text }

    private fun showAccelerator(session: Session) {
        val name = session.accelerator.name
        runOnUiThread {
            findViewById<Button>(R.id.accelerator).text = getString(R.string.accelerator, name)
            speed.text = getString(R.string.runs_on, name)
        }
    }

    private fun switchAccelerator(session: Session) {
        session.runOn(if (session.accelerator == Accelerator.CPU) Accelerator.GPU else Accelerator.CPU)
        showAccelerator(session)
        show("")
    }

    private fun runSelfTest(session: Session) {
        val report = session.selfTest()
        // The tolerances are those of the CPU. A GPU rounds otherwise: there the classes have to be the same.
        val passed = if (session.accelerator == Accelerator.CPU) report.passed else report.sameClasses
        val verdict = getString(if (passed) R.string.selftest_passed else R.string.selftest_failed, session.accelerator.name)
        show("$verdict\n$report\n")
    }

    private fun askForCamera() {
        val granted = ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED
        if (granted) startCamera() else permission.launch(Manifest.permission.CAMERA)
    }

    private fun startCamera() {
        val waiting = ProcessCameraProvider.getInstance(this)
        waiting.addListener({ bind(waiting.get()) }, ContextCompat.getMainExecutor(this))
    }

    private fun bind(provider: ProcessCameraProvider) {
        val cameras = listOf(CameraSelector.DEFAULT_BACK_CAMERA, CameraSelector.DEFAULT_FRONT_CAMERA)
        val camera = cameras.firstOrNull { provider.hasCamera(it) } ?: return message.setText(R.string.no_camera)
        val preview = Preview.Builder().build()
        preview.setSurfaceProvider(findViewById<PreviewView>(R.id.preview).surfaceProvider)
        val analysis = ImageAnalysis.Builder()
            .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
            .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
            .build()
        analysis.setAnalyzer(worker) { frame -> frame.use { guarded { classify(it) } } }
        provider.unbindAll()
        provider.bindToLifecycle(this, camera, preview, analysis)
    }

    private fun classify(frame: ImageProxy) {
        val plane = frame.planes[0]
        val image = RgbImage.fromRgba(plane.buffer, frame.width, frame.height, plane.rowStride, plane.pixelStride, frame.imageInfo.rotationDegrees)
        val opened = session ?: return
        val seen = opened.classify(image) ?: return
        val name = opened.accelerator.name
        runOnUiThread {
            val lines = seen.classes.map { (text, score) -> getString(R.string.scored, text, score) }
            label.text = lines.firstOrNull().orEmpty()
            others.text = lines.drop(1).joinToString("\n")
            speed.text = getString(R.string.speed, name, seen.modelMs, seen.imageMs)
        }
    }
}
