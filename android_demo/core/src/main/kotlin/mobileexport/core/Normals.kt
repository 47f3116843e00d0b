package mobileexport.core

import kotlin.math.floor
import kotlin.math.sqrt

/**
 * Box and Muller's transform from 64-bit integers and IEEE 754 operations alone, the same bits on every machine:
 * docs/noise.md. All of it is in doubles; each operation is rounded to nearest, none is fused, brackets come first.
 */
object Normals {
    private const val LN2 = 0.6931471805599453
    private const val HALF_ROOT = 0.7071067811865476
    private const val TWO_PI = 6.283185307179586
    private const val UNIT = 1.0 / (1L shl 53)
    private val LOG_TERMS = DoubleArray(11) { 1.0 / (2 * it + 1) }
    private val SIN_TERMS = alternating(1) // 1, -1/3!, 1/5!, ..., 1/17!
    private val COS_TERMS = alternating(0) // 1, -1/2!, 1/4!, ..., 1/16!

    /** The two normals of the words [u] and [v]. */
    fun pair(u: Long, v: Long): Pair<Float, Float> {
        val radius = sqrt(-2.0 * logarithm(((u ushr 11) + 1).toDouble() * UNIT))
        val (cosine, sine) = circle((v ushr 11).toDouble() * UNIT)
        return Pair((radius * cosine).toFloat(), (radius * sine).toFloat())
    }

    /** ln x for 0 < x <= 1: x = m * 2^e with m from sqrt(1/2) to sqrt(2), and the series of (m - 1) / (m + 1). */
    private fun logarithm(x: Double): Double {
        var e = Math.getExponent(x) + 1
        var m = Math.scalb(x, -e) // 0.5 <= m < 1
        if (m < HALF_ROOT) {
            m += m
            e -= 1
        }
        val s = (m - 1.0) / (m + 1.0)
        return e * LN2 + (s + s) * polynomial(LOG_TERMS, s * s)
    }

    /** Cosine and sine of 0 <= turns < 1: whole quarters, and the series of what is left, at most an eighth. */
    private fun circle(turns: Double): Pair<Double, Double> {
        val quarter = floor(4.0 * turns + 0.5)
        val angle = TWO_PI * (turns - 0.25 * quarter)
        val sine = angle * polynomial(SIN_TERMS, angle * angle)
        val cosine = polynomial(COS_TERMS, angle * angle)
        return when (quarter.toInt() % 4) {
            0 -> Pair(cosine, sine)
            1 -> Pair(-sine, cosine)
            2 -> Pair(-cosine, -sine)
            else -> Pair(sine, -cosine)
        }
    }

    /** (-1)^k / (2 k + first)! for k = 0 .. 8. The factorials are exact in a double. */
    private fun alternating(first: Int) = DoubleArray(9) { k ->
        val factorial = (1..2 * k + first).fold(1.0) { product, n -> product * n }
        (if (k % 2 == 0) 1.0 else -1.0) / factorial
    }

    /** Horner's scheme: the last term times x plus the one before, and so on. */
    private fun polynomial(terms: DoubleArray, x: Double): Double {
        var total = terms.last()
        for (k in terms.size - 2 downTo 0) total = total * x + terms[k]
        return total
    }
}
