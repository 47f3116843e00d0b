package mobileexport.core

import java.io.IOException

private const val COPY_AGAIN = "Copy it to this device again."
private const val EXPORT_AGAIN = "Export it again."
private val BUNDLES = mapOf(
    "no-manifest" to "This is not a bundle: it has no manifest.json. Choose the folder that mobile-export wrote.",
    "link" to "The bundle holds a link to another place, which is not allowed. Copy the files themselves.",
    "manifest-too-large" to "This is not a bundle: its manifest is far too large.",
    "not-utf8" to "The bundle's manifest is damaged. $COPY_AGAIN",
    "not-json" to "The bundle's manifest is damaged. $COPY_AGAIN",
    "duplicate-key" to "The bundle's manifest says the same thing twice. $EXPORT_AGAIN",
    "other-format" to "This is not a bundle: its manifest is that of something else.",
    "bad-version" to "The bundle does not say which version of the format it has. $EXPORT_AGAIN",
    "unknown-major-version" to "The bundle has a format that this app does not know. Update the app.",
    "bad-manifest" to "The bundle's manifest is incomplete. $EXPORT_AGAIN",
    "too-many-files" to "The bundle has more files than any bundle may have.",
    "out-of-range" to "The bundle claims sizes that no image may have. $EXPORT_AGAIN",
    "unlisted-file" to "The bundle's manifest names a file that it does not list. $EXPORT_AGAIN",
    "bad-path" to "The bundle points to a place outside of its own folder. Do not use it.",
    "missing-file" to "A file of the bundle is missing. $COPY_AGAIN",
    "wrong-size" to "A file of the bundle is incomplete or has another size. $COPY_AGAIN",
    "changed-file" to "A file of the bundle was changed since it was made. $COPY_AGAIN",
    "extra-file" to "Something was added to the network's files. $COPY_AGAIN",
    "wrong-channels" to "The bundle's correction is for other images than its network's. $EXPORT_AGAIN",
)
private val CORRECTIONS = mapOf(
    "other-artifact" to "The bundle's correction was made for another network. Copy both from the same export.",
    "unknown-major-version" to "The bundle's correction has a format that this app does not know. Update the app.",
    "too-large" to "A file of the bundle is larger than any of its kind may be. $EXPORT_AGAIN",
)

/** A sentence for the user: what is wrong and what to do. The error's own message names the place, for a report. */
fun explanation(error: Throwable): String = when (error) {
    is BundleError -> BUNDLES[error.name] ?: "The bundle is damaged (${error.name}). $COPY_AGAIN"
    is FormatError -> CORRECTIONS[error.name] ?: "The bundle's correction is damaged (${error.name}). $EXPORT_AGAIN"
    is NonFiniteError -> "The network computed a number that is none at step ${error.step + 1}, so there is no image."
    is Cancelled -> "Cancelled."
    is OutOfMemoryError -> "This device has too little memory for this network."
    is IOException -> "A file could not be read or written: ${error.message}"
    else -> error.message ?: error.toString()
}
