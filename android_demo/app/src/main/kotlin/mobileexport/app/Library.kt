package mobileexport.app

import android.content.ContentResolver
import android.content.Context
import android.net.Uri
import mobileexport.core.Bundle
import mobileexport.core.BundleStore
import mobileexport.core.Cancellation
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream

/** The bundles of this app: copies in its own storage, each checked before it takes the place of an earlier one. */
class Library(context: Context) {
    private val resolver: ContentResolver = context.contentResolver
    private val store by lazy { BundleStore(context.filesDir.toPath().resolve("bundles"), setOf(TARGET)) }

    fun names(): List<String> = store.names()

    fun open(name: String): Bundle = store.open(name)

    fun remove(name: String) = store.remove(name)

    /** Copies a folder that the user chose; [onProgress] gets the share that is done. */
    fun installFolder(tree: Uri, cancellation: Cancellation, onProgress: (Double) -> Unit): Bundle {
        val folder = DocumentFolder(resolver, tree)
        return store.installFiles(storeName(folder.name), onProgress) { path ->
            folder.open(path)?.let { Cancellable(it, cancellation) }
        }
    }

    /** Unpacks a zip archive that the user chose. */
    fun installArchive(document: Uri, cancellation: Cancellation): Bundle {
        val name = storeName(resolver.displayName(document)?.removeSuffix(".zip"))
        val content = resolver.openInputStream(document) ?: throw IOException("the archive cannot be opened")
        return content.use { store.installArchive(name, Cancellable(it, cancellation)) }
    }

    private class Cancellable(stream: InputStream, private val cancellation: Cancellation) : FilterInputStream(stream) {
        override fun read(buffer: ByteArray, offset: Int, count: Int): Int {
            cancellation.check()
            return super.read(buffer, offset, count)
        }
    }

    companion object {
        const val TARGET = "executorch"

        /** A name of ours for what the user calls it: a bundle of the same name is replaced. */
        fun storeName(name: String?): String =
            name.orEmpty().replace(UNSAFE, "_").trim().trimStart('.').take(MAX_NAME).ifEmpty { "bundle" }

        private val UNSAFE = Regex("[^\\p{L}\\p{N}._ -]")
        private const val MAX_NAME = 80
    }
}
