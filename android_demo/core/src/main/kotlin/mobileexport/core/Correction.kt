package mobileexport.core

/**
 * Four numbers per step and channel, [T][C]: `gain * x + bias` of the sample before the network, and of the network's
 * output. Gains are within 0.1 .. 10. Throws FormatError for a value that is not allowed.
 */
class Correction(
    val outputGain: List<FloatArray>,
    val outputBias: List<FloatArray>,
    val inputGain: List<FloatArray>,
    val inputBias: List<FloatArray>,
) {
    val steps: Int get() = outputGain.size
    val channels: Int get() = outputGain[0].size

    init {
        for (table in listOf(inputBias, inputGain, outputBias, outputGain)) {
            if (table.any { row -> row.any { !it.isFinite() } }) {
                throw FormatError("not-finite", "a table of the correction holds NaN or infinity.")
            }
        }
        for (row in inputGain + outputGain) {
            row.find { it !in 0.1f..10f }?.let {
                throw FormatError("gain-out-of-bounds", "a gain must lie within 0.1 and 10, got $it.")
            }
        }
    }

    companion object {
        const val MAX_CHANNELS = 4096
    }
}
