package mobileexport.host

import mobileexport.core.CheckFailed
import mobileexport.core.Input
import mobileexport.core.Network
import mobileexport.core.NetworkLoader
import mobileexport.core.Signature
import mobileexport.core.Tensor
import mobileexport.core.WholeTensor
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Path

/** A `.pte` on the desktop's ExecuTorch runtime, the one that Python calls: for tests, in place of Android's Module. */
class HostNetwork private constructor(private val signature: Signature, private var handle: Long) : Network {
    override fun run(inputs: Map<String, Input>): Tensor {
        if (handle == 0L) throw CheckFailed("the network was freed")
        val arrays = signature.ordered(inputs).zip(signature.inputs) { input, port -> bytes(input, port.type) }
        return Tensor(signature.output.shape, execute(handle, arrays.toTypedArray()))
    }

    override fun close() {
        if (handle != 0L) free(handle)
        handle = 0L
    }

    private fun bytes(input: Input, type: String): ByteArray {
        val size = input.shape.fold(1, Int::times)
        val buffer = ByteBuffer.allocate(size * if (type == "int64") 8 else 4).order(ByteOrder.nativeOrder())
        when (input) {
            is Tensor -> input.values.forEach(buffer::putFloat)
            is WholeTensor -> input.values.forEach { if (type == "int64") buffer.putLong(it) else buffer.putInt(it.toInt()) }
        }
        return buffer.array()
    }

    companion object {
        /** [library]: what android_demo/host/build.sh made. */
        fun loader(library: Path): NetworkLoader {
            System.load(library.toAbsolutePath().toString())
            return NetworkLoader { artifact, signature ->
                HostNetwork(signature, load(artifact.toAbsolutePath().toString().toByteArray()))
            }
        }

        @JvmStatic
        private external fun load(path: ByteArray): Long

        @JvmStatic
        private external fun execute(handle: Long, inputs: Array<ByteArray>): FloatArray

        @JvmStatic
        private external fun free(handle: Long)
    }
}
