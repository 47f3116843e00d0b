package mobileexport.core

import mobileexport.core.Corpus.get
import mobileexport.core.Corpus.long
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class NoiseTest {
    @TestFactory
    fun everyVectorToTheBit() = Corpus.entries("noise").map { vector ->
        dynamicTest("seed ${vector["seed"].long} step ${vector["step"].long}") {
            val noise = Noise(vector["seed"].long, vector["stream"].long)
            val shape = listOf(1, 1, 1, vector["count"].long.toInt())
            val step = vector["step"].long.toInt()
            val sample = vector["sample"].long
            val drawn = if (step == 0) noise.initial(shape, sample) else noise.step(shape, step - 1, sample)
            val bits = drawn.values.map { it.toRawBits() }
            vector.members!!["bits"]?.let { expected ->
                assertEquals(expected.items!!.map { it.string }, bits.map { "%08X".format(it) })
            } ?: run {
                val bytes = ByteBuffer.allocate(4 * bits.size).order(ByteOrder.LITTLE_ENDIAN)
                bits.forEach(bytes::putInt)
                assertEquals(vector["sha256"].string, Sha256.of(bytes.array()))
            }
        }
    }

    @Test
    fun aLongerDrawBeginsAsAShorterOne() {
        val long = Noise(3).initial(listOf(1, 1, 3, 7)).values
        for (count in 1..21) {
            assertTrue(Noise(3).initial(listOf(1, 1, 1, count)).values.contentEquals(long.copyOf(count)))
        }
    }

    @Test
    fun aNegativeSeedIsRefused() {
        assertFailsWith<UsageError> { Noise(-1) }
    }
}
