package mobileexport.app

import android.app.Activity
import android.app.AlertDialog
import android.view.View
import mobileexport.core.explanation

fun Activity.onClick(id: Int, action: () -> Unit) = (findViewById(id) as View).setOnClickListener { action() }

fun Activity.visible(id: Int, visible: Boolean) {
    (findViewById(id) as View).visibility = if (visible) View.VISIBLE else View.GONE
}

/** A sentence for the user, and below it the error's own words, which name the place. */
fun Activity.showFailure(error: Throwable) {
    val sentence = explanation(error)
    val details = error.message.orEmpty().takeIf { it != sentence }.orEmpty()
    AlertDialog.Builder(this)
        .setTitle(R.string.failed)
        .setMessage("$sentence\n\n$details".trim())
        .setPositiveButton(android.R.string.ok, null)
        .show()
}

fun Activity.ask(question: String, yes: Int, action: () -> Unit) {
    AlertDialog.Builder(this)
        .setMessage(question)
        .setPositiveButton(yes) { _, _ -> action() }
        .setNegativeButton(android.R.string.cancel, null)
        .show()
}
