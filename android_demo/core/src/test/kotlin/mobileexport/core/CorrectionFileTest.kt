package mobileexport.core

import mobileexport.core.Corpus.get
import mobileexport.core.Corpus.long
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class CorrectionFileTest {
    @TestFactory
    fun hostileFilesAreRefusedByName() = Corpus.entries("hostile").map { hostile ->
        dynamicTest(hostile["name"].string!!) {
            val path = hostile.members!!["file"]?.let { Corpus.folder.resolve(it.string!!) } ?: made(hostile["make"])
            val error = assertFailsWith<FormatError> { CorrectionFile.read(path, hostile["artifact_sha256"].string) }
            assertEquals(hostile["error"].string, error.name)
        }
    }

    private fun made(make: Json): Path {
        val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(make["header_length"].long).array()
        val path = Files.createTempFile("large", ".safetensors")
        path.toFile().deleteOnExit()
        return Files.write(path, length + Corpus.blanks(make["bytes"].long - 8))
    }

    @Test
    fun everyTruncationIsCalledTruncated() {
        val bytes = Files.readAllBytes(valid)
        for (length in bytes.indices) {
            val error = assertFailsWith<FormatError> { CorrectionFile.read(bytes.copyOf(length)) }
            assertEquals("truncated", error.name, "of $length bytes")
        }
    }

    @Test
    fun everyFlippedBitIsRefusedByNameOrReadAsValid() {
        val bytes = Files.readAllBytes(valid)
        var refused = 0
        for (bit in 0 until 8 * bytes.size) {
            val changed = bytes.copyOf()
            changed[bit / 8] = (changed[bit / 8].toInt() xor (1 shl bit % 8)).toByte()
            try {
                CorrectionFile.read(changed)
            } catch (error: FormatError) {
                refused++
            }
        }
        assertTrue(refused > bytes.size, "$refused of ${8 * bytes.size}")
    }

    @Test
    fun theDigestMayBeAskedForInCapitals() {
        val file = CorrectionFile.read(valid)
        assertEquals(file.artifactSha256, CorrectionFile.read(valid, file.artifactSha256.uppercase()).artifactSha256)
        assertEquals("DDIMScheduler", file.plan.scheduler)
        assertEquals("ddim", file.metadata["sampler"])
    }

    private val valid = Corpus.folder.resolve("cases/ddim-corrected.correction.safetensors")
}
