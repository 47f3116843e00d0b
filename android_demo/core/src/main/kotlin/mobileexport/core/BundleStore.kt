package mobileexport.core

import java.io.IOException
import java.io.InputStream
import java.nio.file.FileVisitResult
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.SimpleFileVisitor
import java.nio.file.attribute.BasicFileAttributes
import java.util.zip.ZipInputStream

/**
 * The bundles that are installed on this device, each a folder of [root]. What comes in becomes a bundle by a rename,
 * after all of it was checked: a broken or interrupted copy never replaces a bundle that works.
 *
 * [targets]: the parts that this device runs, null for all.
 */
class BundleStore(private val root: Path, private val targets: Set<String>? = null) {
    init {
        Files.createDirectories(root)
        recover()
    }

    /** Names of the installed bundles' folders, sorted. */
    fun names(): List<String> = folders().filter { !it.startsWith(".") }.sorted()

    /** Opens an installed bundle, which checks its files again. */
    fun open(name: String): Bundle = Bundle.open(root.resolve(checked(name)), targets)

    fun remove(name: String) = delete(root.resolve(checked(name)))

    /** Copies the files that this device needs out of a folder. */
    fun installFolder(name: String, source: Path): Bundle = installFiles(name) { file ->
        source.resolve(file).takeIf { Files.isRegularFile(it) }?.let { Files.newInputStream(it) }
    }

    /**
     * Copies the files that this device needs from wherever [open] finds them by their paths in the bundle; it gives null
     * where there is none. [onProgress] gets the share of the bytes after each file.
     */
    fun installFiles(name: String, onProgress: (Double) -> Unit = {}, open: (String) -> InputStream?): Bundle =
        install(name) { incoming ->
            val bytes = open(MANIFEST)?.use { it.readUpTo(ManifestReader.MAX_BYTES + 1) }
                ?: throw BundleError("no-manifest", "there is no $MANIFEST.")
            val manifest = Manifest.read(bytes)
            val files = manifest.filesOf(targets)
            files.keys.forEach(::requirePlainPath) // before anything is opened by such a name
            incoming.add(MANIFEST, bytes.inputStream())
            for (file in files.keys) {
                val content = open(file) ?: throw BundleError("missing-file", "$file is missing.")
                content.use { incoming.add(file, it) }
                onProgress(minOf(1.0, incoming.bytes.toDouble() / manifest.bytesOf(targets)))
            }
        }

    /** Unpacks a zip archive of the bundle's files, or of one folder that holds them, as it arrives. */
    fun installArchive(name: String, archive: InputStream): Bundle = install(name) { incoming ->
        ZipInputStream(archive).use { zip ->
            for (entry in generateSequence { zip.nextEntry }) if (!entry.isDirectory) incoming.add(entry.name, zip)
        }
    }

    /** Lets [fill] add the files, checks all of them, and puts them in the place of an earlier bundle of this name. */
    fun install(name: String, fill: (Incoming) -> Unit): Bundle {
        val work = root.resolve(".${checked(name)}$PARTIAL")
        try {
            delete(work)
            Files.createDirectory(work)
            val incoming = Incoming(work)
            fill(incoming)
            val folder = incoming.folder()
            Bundle.open(folder, targets)
            replace(name, folder)
        } finally {
            delete(work)
        }
        return open(name)
    }

    /** The files of a bundle as they come in. */
    class Incoming internal constructor(private val work: Path) {
        private var files = 0
        internal var bytes = 0L
            private set

        /** Adds the file at the relative [path]. Throws BundleError for a path to elsewhere and for too much of all. */
        fun add(path: String, content: InputStream) {
            requirePlainPath(path)
            if (++files > MAX_FILES) throw BundleError("too-many-files", "more than $MAX_FILES files came in.")
            val file = work.resolve(path)
            Files.createDirectories(file.parent)
            val buffer = ByteArray(1 shl 16)
            Files.newOutputStream(file).use { output ->
                while (true) {
                    val count = content.read(buffer)
                    if (count < 0) break
                    bytes += count
                    if (bytes > MAX_BYTES) throw BundleError("wrong-size", "more than $MAX_BYTES bytes came in.")
                    output.write(buffer, 0, count)
                }
            }
        }

        /** Where the manifest is: at the top, or in the only folder there. */
        internal fun folder(): Path {
            if (Files.exists(work.resolve(MANIFEST))) return work
            return Files.newDirectoryStream(work).use { it.toList() }.singleOrNull { Files.isDirectory(it) } ?: work
        }
    }

    private fun replace(name: String, folder: Path) {
        val place = root.resolve(name)
        val old = root.resolve(".$name$OLD")
        if (Files.exists(place)) Files.move(place, old)
        try {
            Files.move(folder, place)
        } catch (error: IOException) {
            recover()
            throw error
        }
        delete(old)
    }

    /** Removes what an interrupted installation left, and puts back a bundle that it had moved away. */
    private fun recover() {
        for (name in folders().filter { it.startsWith(".") }) {
            val left = root.resolve(name)
            val place = root.resolve(name.drop(1).removeSuffix(OLD))
            if (name.endsWith(OLD) && !Files.exists(place)) Files.move(left, place)
            else if (name.endsWith(OLD) || name.endsWith(PARTIAL)) delete(left)
        }
    }

    private fun folders(): List<String> = Files.newDirectoryStream(root).use { paths ->
        paths.filter { Files.isDirectory(it, LinkOption.NOFOLLOW_LINKS) }.map { it.fileName.toString() }
    }

    private fun checked(name: String): String {
        requirePlainPath(name)
        if ('/' in name || name.startsWith(".")) throw UsageError("'$name' is no name for a bundle.")
        return name
    }

    /** Deletes a folder with all that is in it; what a link in it leads to stays. */
    private fun delete(folder: Path) {
        if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) return
        Files.walkFileTree(folder, object : SimpleFileVisitor<Path>() {
            override fun visitFile(file: Path, attributes: BasicFileAttributes): FileVisitResult {
                Files.delete(file)
                return FileVisitResult.CONTINUE
            }

            override fun postVisitDirectory(directory: Path, error: IOException?): FileVisitResult {
                Files.delete(directory)
                return FileVisitResult.CONTINUE
            }
        })
    }

    private companion object {
        const val MANIFEST = "manifest.json"
        const val PARTIAL = ".partial"
        const val OLD = ".old"
        const val MAX_FILES = 2048
        const val MAX_BYTES = 16L shl 30
    }
}
