package mobileexport.app

import mobileexport.core.CheckFailed
import mobileexport.core.Network
import mobileexport.core.NetworkLoader
import mobileexport.core.Signature
import mobileexport.core.Tensor
import mobileexport.core.Input
import org.pytorch.executorch.Module

/** A `.pte` on ExecuTorch's runtime. Its weights are mapped from the file, and given back when it is closed. */
class ExecuTorchNetwork private constructor(private val signature: Signature, private val module: Module) : Network {
    override fun run(inputs: Map<String, Input>): Tensor {
        // Of a call with too few inputs the runtime says nothing: `values` takes exactly those of the signature.
        val outputs = module.forward(*signature.values(inputs))
        return signature.output(outputs)
    }

    override fun close() = module.destroy()

    companion object {
        val loader = NetworkLoader { artifact, signature ->
            val module = Module.load(artifact.toString(), Module.LOAD_MODE_MMAP)
            try {
                if ("forward" !in module.getMethods()) throw CheckFailed("$artifact has no method forward.")
                module.loadMethod("forward")
            } catch (error: Throwable) { // also what is no Exception: whatever it was, the memory is given back
                module.destroy()
                throw error
            }
            ExecuTorchNetwork(signature, module)
        }
    }
}
