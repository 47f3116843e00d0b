package mobileexport.app

import android.app.Activity
import android.content.Context
import android.content.Intent
import android.graphics.drawable.BitmapDrawable
import android.os.Build
import android.os.Bundle
import android.widget.ArrayAdapter
import android.widget.EditText
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.Spinner
import android.widget.Switch
import android.widget.TextView
import mobileexport.core.Cancellation
import mobileexport.core.Pixels
import mobileexport.core.Sampling
import mobileexport.core.UsageError
import mobileexport.core.Verification
import java.util.Locale

/** One bundle: what is in it, what to draw, the picture as it forms, and the check of this device. */
class BundleActivity : Activity() {
    private val worker = Worker()
    private lateinit var memory: MemoryMeter
    private var sampling: Sampling? = null
    private var report = ""
    private val seconds = ArrayList<Double>()

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.bundle)
        val name = checkNotNull(intent.getStringExtra(NAME))
        title = name
        memory = MemoryMeter(this)
        onClick(R.id.draw) { draw() }
        onClick(R.id.verify) { verify() }
        onClick(R.id.cancel) { worker.cancel() }
        onClick(R.id.share) { share() }
        // Opening checks every file again, so it is work, too.
        start(
            { Sampling(library.open(name), Library.TARGET, ExecuTorchNetwork.loader) },
            ::opened,
        )
    }

    override fun onDestroy() {
        worker.close() // the work ends at its next step and frees its network itself
        super.onDestroy()
    }

    private fun opened(found: Sampling) {
        sampling = found
        title = found.bundle.name
        text(R.id.contents).text = contents(found.bundle.manifest).joinToString("\n")
        val names = found.subjects.names
        subject().adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, names)
        visible(R.id.subject, names.size > 1)
        visible(R.id.prompt, found.subjects.takesPrompts)
        visible(R.id.request, true)
    }

    private fun draw() {
        val sampling = sampling ?: return
        val request = try {
            request()
        } catch (error: UsageError) {
            return showFailure(error)
        }
        start({ cancellation -> Pixels.of(sampling.image(request, cancellation, ::show)) }, ::show)
    }

    private fun verify() {
        val sampling = sampling ?: return
        start({ cancellation -> sampling.verify(cancellation, ::show) }, ::verified)
    }

    private fun verified(found: Verification) {
        report = found.report(about(checkNotNull(sampling)))
        text(R.id.report).text = report
        visible(R.id.verification, true)
    }

    private fun share() {
        val send = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, report)
        startActivity(Intent.createChooser(send, getString(R.string.share)))
    }

    private fun request(): Sampling.Request {
        val seed = input(R.id.seed).toLongOrNull()
            ?: throw UsageError("A seed is a whole number from 0 to 2^63 - 1, got '${input(R.id.seed)}'.")
        return Sampling.Request(
            subject = maxOf(0, subject().selectedItemPosition),
            seed = seed,
            corrected = (findViewById(R.id.corrected) as Switch).isChecked,
            prompt = input(R.id.prompt),
        )
    }

    private fun <T> start(work: (Cancellation) -> T, done: (T) -> Unit) {
        seconds.clear()
        memory.look()
        worker.start(work, done, ::showFailure) { setBusy(false) }
        progress().isIndeterminate = true
        text(R.id.status).setText(R.string.checking)
        setBusy(true)
    }

    private fun setBusy(busy: Boolean) {
        visible(R.id.working, busy)
        for (id in listOf(R.id.draw, R.id.verify)) text(id).isEnabled = !busy
        if (!busy) text(R.id.status).text = summary()
    }

    /** Called by the work, on its own thread. */
    private fun show(event: Sampling.Event) {
        memory.look()
        when (event) {
            is Sampling.Event.Loading ->
                worker.tell { text(R.id.status).text = getString(R.string.loading, event.component) }
            is Sampling.Event.Stepped -> {
                val preview = Pixels.preview(event.step.y)
                worker.tell { show(event, preview) }
            }
            is Sampling.Event.Decoding -> worker.tell { text(R.id.status).setText(R.string.decoding) }
        }
    }

    private fun show(event: Sampling.Event.Stepped, preview: Pixels) {
        val step = event.step
        seconds += event.nanoseconds / 1e9
        progress().isIndeterminate = false
        progress().max = step.steps
        progress().progress = step.index + 1
        text(R.id.status).text = getString(R.string.step, step.index + 1, step.steps) + "\n" + summary()
        show(preview)
    }

    private fun show(pixels: Pixels) {
        val picture = BitmapDrawable(resources, pixels.bitmap())
        picture.isFilterBitmap = pixels.width >= SMOOTH // a small picture is shown as the squares that it is
        (findViewById(R.id.picture) as ImageView).setImageDrawable(picture)
    }

    private fun summary(): String {
        if (seconds.isEmpty()) return ""
        val mean = "%.3f".format(Locale.ROOT, seconds.average())
        return getString(R.string.summary, mean, megabytes(memory.peakBytes), megabytes(memory.freeBytes()))
    }

    private fun about(sampling: Sampling): List<String> {
        val manifest = sampling.bundle.manifest
        return listOf(
            "${manifest.name}, ${manifest.precision}, ${manifest.sampler} in ${manifest.steps} steps",
            "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}, ${Build.HARDWARE}",
            "Memory, largest seen: ${megabytes(memory.peakBytes)}",
        )
    }

    private fun text(id: Int) = findViewById(id) as TextView

    private fun input(id: Int) = text(id).text.toString().trim()

    private fun progress() = findViewById(R.id.progress) as ProgressBar

    private fun subject() = findViewById(R.id.subject) as Spinner

    companion object {
        private const val NAME = "name"
        private const val SMOOTH = 128

        fun intent(context: Context, name: String): Intent =
            Intent(context, BundleActivity::class.java).putExtra(NAME, name)
    }
}
