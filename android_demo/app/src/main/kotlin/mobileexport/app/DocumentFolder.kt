package mobileexport.app

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.InputStream

/** A folder that the user chose, by the paths of its files. [tree]: what the system's picker gave. */
class DocumentFolder(private val resolver: ContentResolver, private val tree: Uri) {
    private val root = DocumentsContract.getTreeDocumentId(tree)
    private val listed = HashMap<String, Map<String, String>>()

    val name: String? get() = resolver.displayName(DocumentsContract.buildDocumentUriUsingTree(tree, root))

    /** The file at [path] ("executorch/unet.pte"), null where there is none. */
    fun open(path: String): InputStream? {
        val names = path.split('/')
        val document = names.fold<String, String?>(root) { folder, name -> folder?.let { children(it)[name] } }
        return document?.let { resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, it)) }
    }

    /** Name to identifier. */
    private fun children(folder: String): Map<String, String> = listed.getOrPut(folder) {
        val uri = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder)
        val columns = arrayOf(Document.COLUMN_DISPLAY_NAME, Document.COLUMN_DOCUMENT_ID)
        resolver.query(uri, columns, null, null, null)?.use { rows ->
            generateSequence { rows.takeIf { it.moveToNext() } }.associate { it.getString(0) to it.getString(1) }
        }.orEmpty()
    }
}

/** What the user sees as the name of a file or folder. */
fun ContentResolver.displayName(document: Uri): String? =
    query(document, arrayOf(Document.COLUMN_DISPLAY_NAME), null, null, null)?.use { rows ->
        if (rows.moveToFirst()) rows.getString(0) else null
    }
