package mobileexport.core

private val NOT_IN_NAMES = Regex("[\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]")

/** Throws BundleError "bad-path" unless [name] is a plain relative path that leads to no other folder. */
internal fun requirePlainPath(name: String) {
    if (NOT_IN_NAMES.containsMatchIn(name) || '\\' in name || name.split('/').any { it in setOf("", ".", "..") }) {
        throw BundleError("bad-path", "'$name' is outside of the bundle or no plain path.")
    }
}
