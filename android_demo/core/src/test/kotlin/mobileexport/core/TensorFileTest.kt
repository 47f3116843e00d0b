package mobileexport.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class TensorFileTest {
    private fun file(header: String, payload: ByteArray = ByteArray(0)): ByteArray {
        val text = header.toByteArray()
        val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(text.size.toLong()).array()
        return length + text + payload
    }

    private fun tensor(dtype: String, shape: String, end: Int, payload: ByteArray) =
        file("""{"x":{"dtype":"$dtype","shape":$shape,"data_offsets":[0,$end]}}""", payload)

    private fun name(bytes: ByteArray) = assertFailsWith<FormatError> { TensorFile.read(bytes) }.name

    @Test
    fun wholeNumbersOfBothWidths() {
        val long = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(-2).putLong(1L shl 40).array()
        val read = TensorFile.read(tensor("I64", "[2,1]", 16, long)).getValue("x") as WholeTensor
        assertContentEquals(longArrayOf(-2, 1L shl 40), read.values)
        assertEquals(listOf(2, 1), read.shape)
        val int = ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(-7).array()
        val narrow = TensorFile.read(tensor("I32", "[]", 4, int)).getValue("x") as WholeTensor
        assertContentEquals(longArrayOf(-7), narrow.values)
    }

    @Test
    fun sizesThatWouldOverflowAreRefused() {
        val wide = 100_000_000_000_000L
        for (shape in listOf("[$wide]", "[$wide,$wide]", "[65536,65536,65536,65536]", "[0]", "[4294967296,9]")) {
            assertEquals("wrong-shape", name(tensor("F32", shape, 4, ByteArray(4))))
        }
        assertEquals("wrong-size", name(tensor("F32", "[2]", 4, ByteArray(4))))
        assertEquals("wrong-dtype", name(tensor("F16", "[2]", 4, ByteArray(4))))
        assertEquals("trailing-bytes", name(tensor("F32", "[1]", 4, ByteArray(5))))
        assertEquals("truncated", name(tensor("F32", "[1]", 4, ByteArray(3))))
    }

    @Test
    fun aFileLargerThanTheLimitIsNotRead() {
        val path = Files.createTempFile("tensors", "")
        Files.write(path, ByteArray(9))
        assertEquals("too-large", assertFailsWith<FormatError> { TensorFile.read(path, 8) }.name)
        Files.delete(path)
    }
}
