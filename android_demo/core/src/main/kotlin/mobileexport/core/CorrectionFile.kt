package mobileexport.core

import java.nio.file.Path
import java.util.Locale

/** A plan and its correction as correction.safetensors holds them: docs/correction-format.md, checks in its order. */
class CorrectionFile private constructor(
    val plan: SamplingPlan,
    val correction: Correction,
    val metadata: Map<String, String>,
) {
    /** sha256 of the artifact that the correction was solved for, lower-case hex. */
    val artifactSha256: String get() = metadata.getValue("artifact_sha256")

    companion object {
        const val MAX_FILE = 64 shl 20
        private const val FORMAT = "timestep-correction"
        private const val VERSION = "1.1"
        private val SHA256 = Regex("[0-9a-f]{64}")
        private val COLUMNS = listOf("timestep", "input_scale", "p", "q", "clip", "a", "b", "sigma")
        private val TABLES = listOf("output_gain", "output_bias", "input_gain", "input_bias")

        private enum class Axis(val limit: Int, val error: String) {
            ONE(1, "wrong-shape"),
            STEPS(SamplingPlan.MAX_STEPS, "too-many-steps"),
            HISTORY(SamplingPlan.MAX_HISTORY, "too-much-history"),
            CHANNELS(Correction.MAX_CHANNELS, "too-many-channels"),
        }

        private val TENSORS = (
            COLUMNS.map { "plan.$it" to listOf(Axis.STEPS) } +
                TABLES.map { it to listOf(Axis.STEPS, Axis.CHANNELS) } +
                listOf("plan.w" to listOf(Axis.STEPS, Axis.HISTORY), "plan.init_sigma" to listOf(Axis.ONE))
            ).sortedBy { it.first }.toMap()

        /**
         * [artifactSha256]: the artifact about to be run; a file solved for another one is refused. null skips this
         * check. Throws FormatError, whose name says why the file is refused.
         */
        fun read(path: Path, artifactSha256: String? = null): CorrectionFile =
            read(readBounded(path, MAX_FILE.toLong()), artifactSha256)

        fun read(bytes: ByteArray, artifactSha256: String? = null): CorrectionFile {
            if (bytes.size > MAX_FILE) refuse("too-large", "a correction file has at most $MAX_FILE bytes.")
            val file = Safetensors.parse(bytes, ::checkVersion)
            checkShapes(file.entries)
            for ((name, entry) in file.entries) {
                if (entry.end - entry.begin != 4 * entry.shape.fold(1L, Long::times)) {
                    refuse("wrong-size", "'$name' has offsets that are not the size of its shape.")
                }
            }
            file.checkCoverage()
            checkMetadata(file.metadata, artifactSha256)
            fun column(name: String) = file.floats(file.entries.getValue("plan.$name"))
            fun table(name: String): List<FloatArray> {
                val entry = file.entries.getValue(name)
                val width = entry.shape[1].toInt()
                val values = file.floats(entry)
                return List(entry.shape[0].toInt()) { values.copyOfRange(it * width, (it + 1) * width) }
            }
            val plan = SamplingPlan(
                column("timestep"), column("input_scale"), column("p"), column("q"), column("clip"), column("a"),
                column("b"), column("sigma"), table("plan.w"), column("init_sigma")[0],
                file.metadata.getValue("prediction_type"), file.metadata.getValue("scheduler"),
            )
            val correction = Correction(
                table("output_gain"), table("output_bias"), table("input_gain"), table("input_bias"),
            )
            return CorrectionFile(plan, correction, file.metadata)
        }

        private fun checkVersion(metadata: Map<String, String>) {
            if (metadata["format"] != FORMAT) refuse("other-format", "metadata 'format' is not '$FORMAT'.")
            val version = metadata["format_version"]
            val major = majorVersion(version) ?: refuse("bad-version", "format_version is '$version'.")
            if (major != majorVersion(VERSION)) {
                refuse("unknown-major-version", "this reader knows version $VERSION, the file has $version.")
            }
        }

        private fun checkShapes(entries: Map<String, Safetensors.Entry>) {
            entries.keys.find { it !in TENSORS }?.let { refuse("unknown-tensor", "'$it' is no tensor of this format.") }
            val found = TENSORS.mapValues { entries[it.key] ?: refuse("missing-tensor", "'${it.key}' is missing.") }
            for ((name, entry) in found) {
                if (entry.dtype != "F32") refuse("wrong-dtype", "'$name' must have dtype F32, got ${entry.dtype}.")
            }
            val sizes = HashMap<Axis, Long>()
            for ((name, axes) in TENSORS) {
                val shape = found.getValue(name).shape
                if (shape.size != axes.size) refuse("wrong-shape", "'$name' must have ${axes.size} axes, got $shape.")
                for ((axis, size) in axes.zip(shape)) {
                    if (size > axis.limit) refuse(axis.error, "'$name' has $size ${axis.name}, at most ${axis.limit}.")
                    if (size < 1 || sizes.getOrPut(axis) { size } != size) {
                        refuse("wrong-shape", "'$name' has $size ${axis.name}, expected ${sizes[axis]}, at least 1.")
                    }
                }
            }
        }

        private fun checkMetadata(metadata: Map<String, String>, artifactSha256: String?) {
            for (key in listOf("artifact_sha256", "prediction_type", "scheduler", "scheduler_config")) {
                if (key !in metadata) refuse("missing-metadata", "metadata '$key' is missing.")
            }
            val digest = metadata.getValue("artifact_sha256")
            if (!SHA256.matches(digest)) refuse("bad-metadata", "artifact_sha256 is not 64 lower-case hex digits.")
            val type = metadata.getValue("prediction_type")
            if (type !in SamplingPlan.PREDICTION_TYPES) refuse("bad-metadata", "prediction_type is '$type'.")
            if (artifactSha256 != null && digest != artifactSha256.lowercase(Locale.ROOT)) {
                refuse("other-artifact", "solved for artifact $digest, not for $artifactSha256.")
            }
        }

        private fun refuse(name: String, message: String): Nothing = throw FormatError(name, message)
    }
}
