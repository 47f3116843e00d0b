package mobileexport.app

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ListView
import android.widget.ProgressBar
import mobileexport.core.Cancellation
import java.io.IOException
import mobileexport.core.Bundle as ExportBundle

/** The installed bundles; others come in from the device's storage. */
class LibraryActivity : Activity() {
    private val worker = Worker()
    private lateinit var list: ListView
    private lateinit var progress: ProgressBar

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.library)
        list = findViewById(R.id.bundles) as ListView
        progress = findViewById(R.id.progress) as ProgressBar
        list.emptyView = findViewById(R.id.none)
        list.setOnItemClickListener { _, _, place, _ ->
            startActivity(BundleActivity.intent(this, list.getItemAtPosition(place) as String))
        }
        list.setOnItemLongClickListener { _, _, place, _ ->
            askToRemove(list.getItemAtPosition(place) as String)
            true
        }
        onClick(R.id.add_folder) { pick(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER) }
        onClick(R.id.add_archive) {
            pick(Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*"), ARCHIVE)
        }
        onClick(R.id.cancel) { worker.cancel() }
        refresh()
    }

    override fun onDestroy() {
        worker.close()
        super.onDestroy()
    }

    @Suppress("OVERRIDE_DEPRECATION") // what took its place is not in the framework
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val chosen = data?.data
        if (result != RESULT_OK || chosen == null) return
        when (request) {
            FOLDER -> install { cancellation -> library.installFolder(chosen, cancellation, ::show) }
            ARCHIVE -> install { cancellation -> library.installArchive(chosen, cancellation) }
        }
    }

    private fun install(copy: (Cancellation) -> ExportBundle) {
        worker.start(copy, done = {}, failed = ::showFailure, ended = ::refresh)
        refresh()
    }

    private fun show(share: Double) = worker.tell {
        progress.isIndeterminate = false
        progress.progress = (share * progress.max).toInt()
    }

    private fun refresh() {
        val busy = worker.isBusy
        for (id in listOf(R.id.progress, R.id.cancel)) visible(id, busy)
        for (id in listOf(R.id.add_folder, R.id.add_archive)) (findViewById(id) as Button).isEnabled = !busy
        progress.isIndeterminate = true
        try {
            list.adapter = ArrayAdapter(this, android.R.layout.simple_list_item_1, library.names())
        } catch (error: IOException) {
            showFailure(error)
        }
    }

    private fun pick(intent: Intent, request: Int) = startActivityForResult(intent, request)

    private fun askToRemove(name: String) = ask(getString(R.string.remove_question, name), R.string.remove) {
        worker.start({ library.remove(name) }, done = {}, failed = ::showFailure, ended = ::refresh)
    }

    private companion object {
        const val FOLDER = 1
        const val ARCHIVE = 2
    }
}
