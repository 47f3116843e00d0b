package mobileexport.app

import mobileexport.core.CheckFailed
import mobileexport.core.Input
import mobileexport.core.Port
import mobileexport.core.Signature
import mobileexport.core.Tensor
import mobileexport.core.WholeTensor
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Tensor as Value

/** Inputs by name as the runtime takes them, in the order of the signature. Throws UsageError for any others. */
fun Signature.values(given: Map<String, Input>): Array<EValue> =
    ordered(given).zip(inputs) { input, port -> EValue.from(value(input, port)) }.toTypedArray()

/** What the runtime gave. Throws CheckFailed unless it is the signature's one output. */
fun Signature.output(values: Array<EValue>): Tensor {
    val value = values.singleOrNull()?.takeIf { it.isTensor() }?.toTensor()
    val shape = value?.shape()?.map { it.toInt() }
    if (value == null || shape != output.shape) {
        throw CheckFailed("the network must give $output, got ${values.size} values, the first of shape $shape.")
    }
    return Tensor(output.shape, value.dataAsFloatArray)
}

private fun value(input: Input, port: Port): Value {
    val shape = LongArray(input.shape.size) { input.shape[it].toLong() }
    return when (input) {
        is Tensor -> Value.fromBlob(input.values, shape)
        is WholeTensor ->
            if (port.type == "int32") Value.fromBlob(IntArray(input.values.size) { input.values[it].toInt() }, shape)
            else Value.fromBlob(input.values, shape)
    }
}
