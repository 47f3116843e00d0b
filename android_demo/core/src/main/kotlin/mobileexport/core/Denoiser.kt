package mobileexport.core

/** Anything that predicts: the network on the phone, recorded outputs in a test. */
fun interface Denoiser {
    /** [sample]: (B, C, H, W), already multiplied by the plan's input scale. The model output, of the same shape. */
    fun predict(sample: Tensor, timestep: Float): Tensor
}
