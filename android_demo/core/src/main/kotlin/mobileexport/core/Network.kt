package mobileexport.core

import java.nio.file.Path

/** An artifact in memory. Closing it frees the memory; it is not called after that. */
interface Network : AutoCloseable {
    /** Inputs by the names of the artifact's signature; its output. */
    fun run(inputs: Map<String, Input>): Tensor
}

/** Puts an artifact, a file or folder, into memory. */
fun interface NetworkLoader {
    fun load(artifact: Path, signature: Signature): Network
}

/** A UNet's network as a denoiser, with what it is told besides sample and timestep. */
internal class NetworkDenoiser(private val network: Network, private val conditioning: Map<String, Input>) : Denoiser {
    override fun predict(sample: Tensor, timestep: Float): Tensor =
        network.run(conditioning + mapOf("sample" to sample, "timestep" to Tensor(listOf(1), floatArrayOf(timestep))))
}
