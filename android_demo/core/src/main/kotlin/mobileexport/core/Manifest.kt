package mobileexport.core

/** What manifest.json says, checked by [ManifestReader]; docs/bundle-format.md has the meaning of every field. */
class Manifest internal constructor(
    val formatVersion: String,
    val name: String,
    val precision: String,
    val sampler: String,
    val steps: Int,
    val guidance: Double,
    val model: Model,
    val sample: Size,
    val image: Size,
    val latents: Latents?,
    val text: Text?,
    val constants: String?,
    val calibration: String,
    val parts: Map<String, Part>,
    val files: Map<String, Json>,
) {
    class Model(
        val name: String,
        val kind: String,
        val scheduler: String,
        val parameters: Long,
        val classes: List<String>,
        val nullLabel: Long?,
    )

    class Size(val channels: Int, val height: Int, val width: Int) {
        /** (1, C, H, W) */
        val shape: List<Int> get() = listOf(1, channels, height, width)
    }

    class Text(
        val maxLength: Long,
        val width: Long,
        val vocabulary: Long,
        val tokenizer: List<String>,
        val prompts: String?,
        val subjects: List<String>,
        val negativePrompt: String,
    )

    class Part(
        val components: Map<String, Component>,
        val correction: String,
        val golden: String,
        val keptSteps: List<Boolean>,
    )

    class Component(
        val artifact: String,
        val signature: Signature,
        val kind: String,
        val parameters: Long,
        val precision: String,
        val storedBits: Double,
        val totalBytes: Long,
    )

    /** The files that a device needs that runs [targets], null for all parts, sorted: all but those of other parts. */
    fun filesOf(targets: Set<String>?): Map<String, Json> {
        val others = if (targets == null) emptyList() else (parts.keys - targets).map { "$it/" }
        return files.filterKeys { name -> others.none(name::startsWith) }.toSortedMap(CodePointOrder)
    }

    /** How many bytes these files have, as far as the manifest is right. */
    fun bytesOf(targets: Set<String>?): Long =
        filesOf(targets).values.sumOf { it.members?.get("bytes")?.size ?: 0 }

    /** The entries of an artifact: the file [name] itself, or the files below the folder by their path in it. */
    fun artifactFiles(name: String): Map<String, Json> {
        files[name]?.let { return mapOf(name.substringAfterLast('/') to it) }
        return files.filterKeys { it.startsWith("$name/") }.mapKeys { it.key.removePrefix("$name/") }
    }

    companion object {
        /** Of an image, and its channels. */
        const val MAX_SIDE = 4096

        /** The content of manifest.json, its files not yet looked at. Throws BundleError. */
        fun read(bytes: ByteArray): Manifest = ManifestReader.read(bytes)
    }
}
