package mobileexport.core

/**
 * m = m_u + scale * (m_c - m_u), three rounded operations (Ho and Salimans, arXiv 2207.12598, eq. 6, scale = 1 + w).
 *
 * [unconditional] is asked first; scale 1 is one call, of [conditional] alone.
 */
class GuidedDenoiser(
    private val conditional: Denoiser,
    private val unconditional: Denoiser,
    private val scale: Float,
) : Denoiser {
    override fun predict(sample: Tensor, timestep: Float): Tensor {
        if (scale == 1f) return conditional.predict(sample, timestep)
        val other = unconditional.predict(sample, timestep)
        val given = conditional.predict(sample, timestep)
        return other + scale * (given - other)
    }
}
