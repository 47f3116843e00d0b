package mobileexport.core

/**
 * What the UNet is told besides sample and timestep: [given] inputs by name, a row each, and what guidance's other
 * branch is told in their place, [other], empty without guidance.
 */
class Conditioning(val given: Map<String, Input> = emptyMap(), val other: Map<String, Input> = emptyMap()) {
    /** The network as a denoiser, with guidance where there is something to be guided away from. */
    fun denoiser(network: Network, guidance: Double): Denoiser {
        val conditional = NetworkDenoiser(network, given)
        if (other.isEmpty() || guidance == 1.0) return conditional
        return GuidedDenoiser(conditional, NetworkDenoiser(network, given + other), guidance.toFloat())
    }

    companion object {
        private const val NULL = "null."

        /** Of tensors by name, those of guidance's other branch as "null.<name>". */
        fun of(tensors: Map<String, Input>): Conditioning {
            val (other, given) = tensors.entries.partition { it.key.startsWith(NULL) }
            return Conditioning(
                given.associate { it.key to it.value }, other.associate { it.key.removePrefix(NULL) to it.value },
            )
        }
    }
}
