package mobileexport.core

/**
 * One sample of a part with every model output on its way, as the exporting machine drew it: golden.safetensors.
 *
 * [outputs]: (N, 1, C, H, W), after guidance, before the output correction.
 */
class Golden private constructor(
    val noise: Tensor,
    val outputs: Tensor,
    val sampleCorrected: Tensor,
    val conditioning: Conditioning,
) {
    companion object {
        /** The seed of its noise. */
        const val SEED = 0L

        /** [steps]: of the plan that the record must fit. Throws CheckFailed where it does not. */
        fun read(bundle: Bundle, target: String, steps: Int): Golden {
            val tensors = bundle.tensors(bundle.part(target).golden).toMutableMap()
            val shape = bundle.manifest.sample.shape
            fun take(name: String, wanted: List<Int>): Tensor {
                val tensor = tensors.remove(name) as? Tensor
                if (tensor?.shape != wanted) {
                    throw CheckFailed("${bundle.name} holds no record to verify: $name is missing or does not fit.")
                }
                return tensor
            }
            val noise = take("noise", shape)
            val outputs = take("outputs", listOf(steps) + shape)
            val corrected = take("sample_corrected", shape)
            take("sample_uncorrected", shape)
            return Golden(noise, outputs, corrected, Conditioning.of(tensors))
        }
    }
}
