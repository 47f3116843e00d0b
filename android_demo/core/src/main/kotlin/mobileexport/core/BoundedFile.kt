package mobileexport.core

import java.nio.file.Files
import java.nio.file.Path

/** All bytes of a file of at most [limit] bytes. Throws FormatError "too-large" before a larger one is read. */
internal fun readBounded(path: Path, limit: Long): ByteArray {
    val size = Files.size(path)
    if (size > limit) throw FormatError("too-large", "a file of this kind has at most $limit bytes, got $size.")
    return Files.readAllBytes(path)
}
