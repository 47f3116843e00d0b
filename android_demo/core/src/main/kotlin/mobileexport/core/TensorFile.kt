package mobileexport.core

import java.nio.file.Path

/** An ordinary safetensors file of float32 numbers and whole ones (I64, I32), all in memory. */
object TensorFile {
    private const val MAX_FILE = 512L shl 20

    /** The tensors by name. Throws FormatError for a file that is none, or has more than [limit] bytes. */
    fun read(path: Path, limit: Long = MAX_FILE): Map<String, Input> = read(readBounded(path, limit))

    fun read(bytes: ByteArray): Map<String, Input> {
        val file = Safetensors.parse(bytes)
        for ((name, entry) in file.entries) {
            val width = when (entry.dtype) {
                "F32", "I32" -> 4L
                "I64" -> 8L
                else -> throw FormatError("wrong-dtype", "'$name' has dtype ${entry.dtype}.")
            }
            var size: Long = width
            for (side in entry.shape) {
                size = if (side in 1..bytes.size) size * side else 0 // no overflow: each factor is below 2^31
                if (size !in 1..bytes.size) throw FormatError("wrong-shape", "'$name' has the shape ${entry.shape}.")
            }
            if (entry.end - entry.begin != size) throw FormatError("wrong-size", "'$name' has another size.")
        }
        file.checkCoverage()
        return file.entries.mapValues { (_, entry) -> input(file, entry) }
    }

    private fun input(file: Safetensors, entry: Safetensors.Entry): Input {
        val shape = entry.shape.map { it.toInt() }
        val size = shape.fold(1, Int::times)
        val buffer = file.buffer(entry)
        return when (entry.dtype) {
            "F32" -> Tensor(shape, file.floats(entry))
            "I64" -> WholeTensor(shape, LongArray(size).also { buffer.asLongBuffer().get(it) })
            else -> buffer.asIntBuffer().let { values -> WholeTensor(shape, LongArray(size) { values.get().toLong() }) }
        }
    }
}
