package mobileexport.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.TreeMap

/**
 * The container of tensors, read without trust: a length, a JSON header, the payload. docs/correction-format.md has the
 * checks and their names.
 *
 * [metadata] is that of the header; [entries] are the tensors by name, in the order of code points.
 */
class Safetensors private constructor(
    private val bytes: ByteArray,
    private val payload: Int,
    val metadata: Map<String, String>,
    val entries: Map<String, Entry>,
) {
    /** One tensor: its bytes are [begin] until [end] of the payload. */
    class Entry(val dtype: String, val shape: List<Long>, val begin: Long, val end: Long)

    /** The tensors tile the payload exactly: no hole, no overlap, nothing behind. */
    fun checkCoverage() {
        var reached = 0L
        for (entry in entries.values.sortedBy { it.begin }) {
            if (entry.begin < reached) refuse("overlapping-tensors", "one begins at ${entry.begin}, before $reached.")
            if (entry.begin > reached) refuse("gap", "bytes $reached..${entry.begin} belong to no tensor.")
            reached = entry.end
        }
        val length = (bytes.size - payload).toLong()
        if (reached > length) refuse("truncated", "the tensors need $reached bytes, $length are there.")
        if (reached < length) refuse("trailing-bytes", "${length - reached} bytes follow the last tensor.")
    }

    /** The bytes of a tensor whose place was checked. */
    fun buffer(entry: Entry): ByteBuffer =
        ByteBuffer.wrap(bytes, payload + entry.begin.toInt(), (entry.end - entry.begin).toInt())
            .slice().order(ByteOrder.LITTLE_ENDIAN)

    fun floats(entry: Entry): FloatArray =
        buffer(entry).asFloatBuffer().let { values -> FloatArray(values.remaining()).also { values.get(it) } }

    companion object {
        const val MAX_HEADER = 1 shl 20
        private const val MAX_DEPTH = 4 // header > tensor > shape is 3
        private val FIELDS = setOf("dtype", "shape", "data_offsets")

        /**
         * The header of [bytes]. [checkVersion] sees the metadata before the tensors are looked at, since another major
         * version may describe them in another way.
         */
        fun parse(bytes: ByteArray, checkVersion: (Map<String, String>) -> Unit = {}): Safetensors {
            if (bytes.size < 8) refuse("truncated", "a file has at least 8 bytes, got ${bytes.size}.")
            val length = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).long // unsigned
            if (length < 0 || length > MAX_HEADER) {
                refuse("header-too-large", "the header has at most $MAX_HEADER bytes, got ${length.toULong()}.")
            }
            val payload = 8 + length.toInt()
            if (payload > bytes.size) refuse("truncated", "the header needs $length bytes, it has ${bytes.size - 8}.")
            val text = decodeUtf8(bytes, 8, payload)
            if (!text.startsWith("{")) refuse("not-json", "the header must begin with '{'.")
            val header = TreeMap<String, Json>(CodePointOrder)
            header.putAll(checkNotNull(parseJson(text, MAX_DEPTH).members))
            val metadata = strings(header.remove("__metadata__"))
            checkVersion(metadata)
            val entries = header.mapValuesTo(LinkedHashMap()) { (name, value) -> entry(name, value) }
            return Safetensors(bytes, payload, metadata, entries)
        }

        private fun strings(value: Json?): Map<String, String> {
            if (value == null) return emptyMap()
            val members = value.members ?: refuse("bad-header", "__metadata__ must be an object.")
            return members.mapValues { (key, text) ->
                text.string ?: refuse("bad-header", "__metadata__ must be an object of strings, '$key' is none.")
            }
        }

        private fun entry(name: String, value: Json): Entry {
            val members = value.members
            if (members == null || members.keys != FIELDS) {
                refuse("bad-header", "'$name' must be an object of dtype, shape and data_offsets.")
            }
            val dtype = members.getValue("dtype").string
            val shape = sizes(members.getValue("shape"))
            val offsets = sizes(members.getValue("data_offsets"))
            if (dtype == null || shape == null || offsets?.size != 2 || offsets[0] > offsets[1]) {
                refuse("bad-header", "'$name' must have a dtype name, a shape and two offsets that do not decrease.")
            }
            return Entry(dtype, shape, offsets[0], offsets[1])
        }

        private fun sizes(value: Json): List<Long>? {
            val items = value.items ?: return null
            return items.map { it.size ?: return null }
        }
    }
}

private fun refuse(name: String, message: String): Nothing = throw FormatError(name, message)
