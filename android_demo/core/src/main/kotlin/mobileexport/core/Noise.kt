package mobileexport.core

/**
 * Unit-normal noise that depends on stream, seed, sample and step alone: docs/noise.md, Philox 4x64-10.
 *
 * [seed]: 0 .. 2^63 - 1; [stream]: 3 is that of apps.
 */
class Noise(private val seed: Long, private val stream: Long = SIMULATION) {
    init {
        if (seed < 0) throw UsageError("a seed is 0 .. 2^63 - 1, got $seed.")
    }

    /** The noise that a run begins with, (1, C, H, W). */
    fun initial(shape: List<Int>, sample: Long = 0): Tensor = normals(shape, sample, 0)

    /** The fresh noise of step [step], from 0. */
    fun step(shape: List<Int>, step: Int, sample: Long = 0): Tensor = normals(shape, sample, step + 1L)

    private fun normals(shape: List<Int>, sample: Long, word: Long): Tensor {
        val values = FloatArray(shape.reduce(Int::times))
        for (k in values.indices step 4) {
            val words = philox(longArrayOf(k / 4 + 1L, word, sample, 0))
            val (first, second) = Normals.pair(words[0], words[1])
            val (third, fourth) = Normals.pair(words[2], words[3])
            floatArrayOf(first, second, third, fourth).copyInto(values, k, 0, minOf(4, values.size - k))
        }
        return Tensor(shape, values)
    }

    /** One block of four random words. All numbers are unsigned and wrap around, as Long's products and sums do. */
    private fun philox(counter: LongArray): LongArray {
        var (c0, c1, c2, c3) = counter
        var k0 = seed
        var k1 = stream
        repeat(10) {
            val h0 = unsignedHigh(M0, c0)
            val l0 = M0 * c0
            val h1 = unsignedHigh(M1, c2)
            val l1 = M1 * c2
            c0 = h1 xor c1 xor k0
            c1 = l1
            c2 = h0 xor c3 xor k1
            c3 = l0
            k0 += W0
            k1 += W1
        }
        return longArrayOf(c0, c1, c2, c3)
    }

    companion object {
        const val SIMULATION = 3L
        private val M0 = 0xD2E7470EE14C6C93uL.toLong()
        private val M1 = 0xCA5A826395121157uL.toLong()
        private val W0 = 0x9E3779B97F4A7C15uL.toLong()
        private val W1 = 0xBB67AE8584CAA73BuL.toLong()

        /** The high 64 bits of an unsigned product, from halves: Android's Math has no multiplyHigh before API 31. */
        private fun unsignedHigh(a: Long, b: Long): Long {
            val (aLow, aHigh) = Pair(a and 0xFFFFFFFFL, a ushr 32)
            val (bLow, bHigh) = Pair(b and 0xFFFFFFFFL, b ushr 32)
            val middle = aHigh * bLow + (aLow * bLow ushr 32)
            val other = aLow * bHigh + (middle and 0xFFFFFFFFL)
            return aHigh * bHigh + (middle ushr 32) + (other ushr 32)
        }
    }
}
