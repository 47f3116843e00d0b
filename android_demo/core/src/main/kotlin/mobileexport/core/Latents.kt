package mobileexport.core

/**
 * Constants between latents, which the UNet denoises, and images: [factor] image pixels per latent pixel along each
 * side. What the UNet denoises is (latents - shift) * scaling.
 */
class Latents(
    val kind: String,
    val channels: Int,
    val imageChannels: Int,
    val factor: Int,
    scalingFactor: Double,
    shiftFactor: Double,
) {
    private val scaling = scalingFactor.toFloat()
    private val shift = shiftFactor.toFloat()

    /** What the UNet denoises, as the decoder takes it. */
    fun toDecoder(x: Tensor): Tensor = x.map { _, value ->
        val unscaled = value / scaling
        unscaled + shift
    }
}
