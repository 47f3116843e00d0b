package mobileexport.core

import java.nio.file.Files
import java.nio.file.Path
import java.security.MessageDigest

/** sha256 as 64 lower-case hex digits. */
object Sha256 {
    fun of(bytes: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(bytes))

    /** Of a file, which is read in pieces. */
    fun of(path: Path): String {
        val digest = MessageDigest.getInstance("SHA-256")
        val buffer = ByteArray(1 shl 16)
        Files.newInputStream(path).use { stream ->
            while (true) {
                val count = stream.read(buffer)
                if (count < 0) break
                digest.update(buffer, 0, count)
            }
        }
        return hex(digest.digest())
    }

    private fun hex(bytes: ByteArray) = buildString {
        for (byte in bytes) append(DIGITS[byte.toInt() shr 4 and 15]).append(DIGITS[byte.toInt() and 15])
    }

    private const val DIGITS = "0123456789abcdef"
}
