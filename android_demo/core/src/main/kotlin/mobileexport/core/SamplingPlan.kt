package mobileexport.core

/**
 * N steps of the device loop, a scheduler compiled to a table: docs/correction-format.md says what each column means.
 *
 * Columns are [N]; [w] is [N][H]. Throws FormatError for a value that is not allowed.
 */
class SamplingPlan(
    val timestep: FloatArray,
    val inputScale: FloatArray,
    val p: FloatArray,
    val q: FloatArray,
    val clip: FloatArray,
    val a: FloatArray,
    val b: FloatArray,
    val sigma: FloatArray,
    val w: List<FloatArray>,
    val initSigma: Float,
    val predictionType: String,
    val scheduler: String,
) {
    val steps: Int get() = timestep.size

    /** How many converted outputs the loop keeps, the current one included. */
    val history: Int get() = w[0].size

    val needsNoise: Boolean get() = sigma.any { it != 0f }

    init {
        val columns = listOf(timestep, inputScale, p, q, clip, a, b, sigma, floatArrayOf(initSigma)) + w
        if (columns.any { column -> column.any { !it.isFinite() } }) refuse("not-finite", "a number is not finite")
        for (i in 1 until steps) {
            if (timestep[i] > timestep[i - 1]) refuse("timesteps-not-decreasing", "step $i has ${timestep[i]}")
        }
        if (timestep.last() < 0) refuse("bad-plan", "a timestep is below 0")
        if (inputScale.any { it <= 0 }) refuse("bad-plan", "an input scale is not above 0")
        if (clip.any { it < 0 }) refuse("bad-plan", "a clip is below 0")
        if (sigma.any { it < 0 }) refuse("bad-plan", "a sigma is below 0")
        if (initSigma <= 0) refuse("bad-plan", "init_sigma is not above 0")
        for ((i, row) in w.withIndex()) {
            if (row.drop(i + 1).any { it != 0f }) refuse("bad-plan", "step $i uses outputs before the first")
        }
    }

    private fun refuse(name: String, reason: String): Nothing = throw FormatError(name, "the plan is no plan: $reason.")

    companion object {
        const val MAX_STEPS = 4096
        const val MAX_HISTORY = 8
        val PREDICTION_TYPES = listOf("epsilon", "sample", "v_prediction")
    }
}
