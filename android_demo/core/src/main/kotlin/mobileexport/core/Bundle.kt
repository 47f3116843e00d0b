package mobileexport.core

import java.io.IOException
import java.nio.file.FileVisitResult
import java.nio.file.Files
import java.nio.file.InvalidPathException
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.SimpleFileVisitor
import java.nio.file.attribute.BasicFileAttributes

/** A bundle all of whose files were checked against its manifest when it was opened: docs/bundle-format.md. */
class Bundle private constructor(val folder: Path, val manifest: Manifest) {
    val name: String get() = manifest.name

    /** The part of one target. Throws UsageError naming what the bundle has. */
    fun part(target: String): Manifest.Part = manifest.parts[target]
        ?: throw UsageError("$name has no part for $target; it has: ${manifest.parts.keys.joinToString()}.")

    /** One network of a part. Throws UsageError naming what the part has. */
    fun component(target: String, component: String): Manifest.Component = part(target).components[component]
        ?: noComponent(target, component)

    private fun noComponent(target: String, component: String): Nothing =
        throw UsageError("$name has no $component for $target; it has: ${part(target).components.keys.joinToString()}.")

    /** The file or folder that the target's runtime loads. */
    fun artifact(target: String, component: String): Path = folder.resolve(component(target, component).artifact)

    /** The plan and correction of the UNet, checked to be solved for this very artifact. */
    fun correctionFile(target: String): CorrectionFile {
        val part = part(target)
        val digest = artifactDigest(manifest, part.components.getValue("unet").artifact)
        val file = CorrectionFile.read(folder.resolve(part.correction), digest)
        if (file.correction.channels != manifest.sample.channels) {
            refuse("wrong-channels", "the correction is not for the ${manifest.sample.channels} channels of samples.")
        }
        return file
    }

    /** The tensors of a file of the bundle. */
    fun tensors(file: String): Map<String, Input> = TensorFile.read(folder.resolve(file))

    companion object {
        private const val MANIFEST = "manifest.json"
        private const val UNBOUND = "Manifest.json" // at the root of an artifact folder: a list with random names

        /**
         * The bundle in [folder], every check made in the order of docs/bundle-format.md. [targets]: the parts to
         * check, null for all; files in the folders of others may be missing. Throws BundleError or FormatError.
         */
        fun open(folder: Path, targets: Set<String>? = null): Bundle {
            val path = folder.resolve(MANIFEST)
            if (Files.isSymbolicLink(path)) refuse("link", "$MANIFEST is a link.")
            if (!Files.isRegularFile(path)) refuse("no-manifest", "there is no $MANIFEST.")
            if (Files.size(path) > ManifestReader.MAX_BYTES) refuse("manifest-too-large", "$MANIFEST is too large.")
            val manifest = ManifestReader.read(Files.readAllBytes(path))
            val parts = manifest.parts.filterKeys { targets == null || it in targets }
            if (parts.isEmpty()) throw UsageError("${manifest.name} has ${manifest.parts.keys}, and none of $targets.")
            val files = manifest.filesOf(targets)
            files.keys.forEach(::requirePlainPath)
            for ((name, entry) in files) reading(name) { checkSize(folder, name, entry) }
            for ((name, entry) in files) reading(name) { checkDigest(folder, name, entry) }
            for (part in parts.values) {
                for (component in part.components.values) checkFolder(folder, component.artifact, files.keys)
            }
            return Bundle(folder, manifest).also { bundle -> parts.keys.forEach(bundle::correctionFile) }
        }

        /**
         * Digest of the artifact [name] from the manifest's list of files alone: a file's is its sha256, a folder's the
         * sha256 over the sorted lines "sha256, two blanks, path in the folder" of its files.
         */
        fun artifactDigest(manifest: Manifest, name: String): String {
            fun sha256(entry: Json) = checkNotNull(entry.members?.get("sha256")?.string)
            manifest.files[name]?.let { return sha256(it) }
            val files = manifest.artifactFiles(name).filterKeys { it != UNBOUND }
            val lines = files.map { (path, entry) -> "${sha256(entry)}  $path\n" }.sortedWith(CodePointOrder)
            return Sha256.of(lines.joinToString("").toByteArray())
        }

        private fun checkSize(folder: Path, name: String, entry: Json) {
            var path = folder
            for (segment in name.split('/')) {
                path = path.resolve(segment)
                if (Files.isSymbolicLink(path)) refuse("link", "$name is a link.")
            }
            if (!Files.isRegularFile(path, LinkOption.NOFOLLOW_LINKS)) refuse("missing-file", "$name is missing.")
            if (entry.members?.get("bytes")?.whole != Files.size(path)) {
                refuse("wrong-size", "$name has ${Files.size(path)} bytes, the manifest says otherwise.")
            }
        }

        private fun checkDigest(folder: Path, name: String, entry: Json) {
            if (entry.members?.get("sha256")?.string != Sha256.of(folder.resolve(name))) {
                refuse("changed-file", "$name was changed since the bundle was made.")
            }
        }

        /** A runtime may load whatever lies in an artifact folder, so that nothing else may lie there. */
        private fun checkFolder(folder: Path, artifact: String, listed: Set<String>) {
            val root = folder.resolve(artifact)
            if (!Files.isDirectory(root)) return
            Files.walkFileTree(root, object : SimpleFileVisitor<Path>() {
                override fun visitFile(file: Path, attributes: BasicFileAttributes): FileVisitResult {
                    val name = folder.relativize(file).joinToString("/")
                    if (name !in listed) refuse("extra-file", "$name is not in the list of files.")
                    return FileVisitResult.CONTINUE
                }
            })
        }

        private inline fun reading(name: String, check: () -> Unit) = try {
            check()
        } catch (error: IOException) {
            refuse("missing-file", "$name cannot be read (${error.message}).")
        } catch (error: InvalidPathException) {
            refuse("missing-file", "$name is no name of a file here (${error.message}).")
        }

        private fun refuse(name: String, message: String): Nothing = throw BundleError(name, message)
    }
}
