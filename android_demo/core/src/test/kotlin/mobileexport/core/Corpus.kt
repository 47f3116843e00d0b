package mobileexport.core

import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import java.nio.file.StandardCopyOption

/** The corpus that all languages share: tests/golden, whose README.md says what is what. */
object Corpus {
    val folder: Path = generateSequence(Paths.get("").toAbsolutePath()) { it.parent }
        .map { it.resolve("tests/golden") }
        .first { Files.isRegularFile(it.resolve("index.json")) }
    private val index = parseJson(decodeUtf8(Files.readAllBytes(folder.resolve("index.json"))), 16)

    fun entries(kind: String): List<Json> = index["$kind"].items!!

    operator fun Json.get(key: String): Json = members!!.getValue(key)

    /** Whole numbers above 2^53 are decimal strings. */
    val Json.long: Long get() = string?.toLong() ?: whole!!

    fun record(path: String): Map<String, Tensor> =
        TensorFile.read(folder.resolve(path)).mapValues { it.value as Tensor }

    fun hex(text: String): ByteArray = text.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

    /** A copy of the valid bundle with [edits] made, in a temporary folder; links lead to another one beside it. */
    fun bundle(edits: List<Json> = emptyList()): Path {
        val temporary = Files.createTempDirectory("bundle")
        val copy = temporary.resolve("copy")
        copy(folder.resolve("bundle"), copy)
        for (edit in edits) apply(edit, copy.resolve(edit["file"].string!!), temporary.resolve("outside"))
        return copy
    }

    fun copy(from: Path, to: Path) = Files.walk(from).use { paths ->
        paths.forEach { Files.copy(it, to.resolve(from.relativize(it).toString())) }
    }

    private fun apply(edit: Json, file: Path, outside: Path) {
        when (val op = edit["op"].string) {
            "splice" -> {
                val bytes = Files.readAllBytes(file)
                val at = edit["at"].long.toInt()
                val rest = bytes.copyOfRange(at + edit["remove"].long.toInt(), bytes.size)
                Files.write(file, bytes.copyOf(at) + content(edit) + rest)
            }
            "delete" -> Files.delete(file)
            "add" -> Files.write(file, content(edit))
            "pad" -> Files.write(file, Files.readAllBytes(file).let { it + blanks(edit["bytes"].long - it.size) })
            "link" -> {
                Files.createDirectories(outside)
                val kept = outside.resolve(file.fileName)
                Files.move(file, kept, StandardCopyOption.ATOMIC_MOVE)
                Files.createSymbolicLink(file, kept)
            }
            else -> error("unknown edit $op")
        }
    }

    fun blanks(count: Long) = ByteArray(count.toInt()) { ' '.code.toByte() }

    private fun content(edit: Json): ByteArray =
        edit.members!!["text"]?.let { it.string!!.toByteArray() } ?: hex(edit["hex"].string!!)
}
