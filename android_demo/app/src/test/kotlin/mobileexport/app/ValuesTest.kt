package mobileexport.app

import mobileexport.core.CheckFailed
import mobileexport.core.Port
import mobileexport.core.Signature
import mobileexport.core.Tensor
import mobileexport.core.UsageError
import mobileexport.core.WholeTensor
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.pytorch.executorch.Tensor as Value

/** The way into the runtime and out of it, with the runtime's own classes of values. */
class ValuesTest {
    private val signature = Signature(
        listOf(
            Port("sample", listOf(1, 2, 1, 2), "float32"),
            Port("timestep", listOf(1), "float32"),
            Port("class_labels", listOf(1), "int64"),
        ),
        Port("noise_pred", listOf(1, 2, 1, 2), "float32"),
    )
    private val sample = Tensor(listOf(1, 2, 1, 2), floatArrayOf(1f, -0f, Float.MIN_VALUE, 4f))
    private val inputs = mapOf(
        "class_labels" to WholeTensor(listOf(1), longArrayOf(Long.MAX_VALUE)),
        "timestep" to Tensor(listOf(1), floatArrayOf(999f)),
        "sample" to sample,
    )

    @Test
    fun inputsGoInTheOrderOfTheSignatureWithTheirShapesAndTypes() {
        val values = signature.values(inputs).map { it.toTensor() }
        assertEquals(listOf(DType.FLOAT, DType.FLOAT, DType.INT64), values.map { it.dtype() })
        assertContentEquals(longArrayOf(1, 2, 1, 2), values[0].shape())
        assertContentEquals(longArrayOf(1), values[2].shape())
        assertContentEquals(sample.values.map(Float::toRawBits), values[0].dataAsFloatArray.map(Float::toRawBits))
        assertContentEquals(floatArrayOf(999f), values[1].dataAsFloatArray)
        assertContentEquals(longArrayOf(Long.MAX_VALUE), values[2].dataAsLongArray)
    }

    @Test
    fun wholeNumbersAreNarrowedWhereTheNetworkTakes32Bits() {
        val narrow = Signature(listOf(Port("input_ids", listOf(1, 3), "int32")), signature.output)
        val (value) = narrow.values(mapOf("input_ids" to WholeTensor(listOf(1, 3), longArrayOf(0, -1, 49407))))
        assertEquals(DType.INT32, value.toTensor().dtype())
        assertContentEquals(intArrayOf(0, -1, 49407), value.toTensor().dataAsIntArray)
    }

    @Test
    fun otherInputsAreRefusedBeforeTheRuntimeSeesThem() {
        assertFailsWith<UsageError> { signature.values(inputs - "class_labels") }
        assertFailsWith<UsageError> { signature.values(inputs + ("more" to sample)) }
        assertFailsWith<UsageError> { signature.values(inputs + ("timestep" to sample)) }
        val label = Tensor(listOf(1), floatArrayOf(1f))
        assertFailsWith<UsageError> { signature.values(inputs + ("class_labels" to label)) }
    }

    @Test
    fun theOutputKeepsItsBits() {
        val found = signature.output(arrayOf(EValue.from(Value.fromBlob(sample.values, longArrayOf(1, 2, 1, 2)))))
        assertEquals(true, found.sameBits(sample))
    }

    @Test
    fun anotherOutputIsRefused() {
        val right = EValue.from(Value.fromBlob(sample.values, longArrayOf(1, 2, 1, 2)))
        val shaped = EValue.from(Value.fromBlob(sample.values, longArrayOf(1, 4)))
        for (outputs in listOf(arrayOf(), arrayOf(right, right), arrayOf(shaped), arrayOf(EValue.from(1L)))) {
            assertFailsWith<CheckFailed> { signature.output(outputs) }
        }
    }
}
