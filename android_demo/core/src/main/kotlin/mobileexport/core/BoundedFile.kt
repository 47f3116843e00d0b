package mobileexport.core

import java.io.ByteArrayOutputStream
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path

/** All bytes of a file of at most [limit] bytes. Throws FormatError "too-large" before a larger one is read. */
internal fun readBounded(path: Path, limit: Long): ByteArray {
    val size = Files.size(path)
    if (size > limit) throw FormatError("too-large", "a file of this kind has at most $limit bytes, got $size.")
    return Files.readAllBytes(path)
}

/** What is left of a stream, but at most [limit] bytes. */
internal fun InputStream.readUpTo(limit: Long): ByteArray {
    val found = ByteArrayOutputStream()
    val buffer = ByteArray(1 shl 16)
    while (found.size() < limit) {
        val count = read(buffer, 0, minOf(buffer.size.toLong(), limit - found.size()).toInt())
        if (count < 0) break
        found.write(buffer, 0, count)
    }
    return found.toByteArray()
}
