package mobileexport.core

/** What a network takes: numbers with a shape, row-major. */
sealed interface Input {
    val shape: List<Int>
}

/** Whole numbers, such as labels. */
class WholeTensor(override val shape: List<Int>, val values: LongArray) : Input {
    init {
        requireSize(shape, values.size)
    }
}

/**
 * Float32 numbers. Each operation is one float32 operation on every element, rounded to nearest and never fused, as the
 * virtual machine defines it. Nothing writes to [values] once they are in a tensor.
 */
class Tensor(override val shape: List<Int>, val values: FloatArray) : Input {
    init {
        requireSize(shape, values.size)
    }

    /** (B, C, H, W): gain * x + bias for each channel. */
    fun scaled(gain: FloatArray, bias: FloatArray): Tensor {
        val area = shape[2] * shape[3]
        return map { k, value ->
            val product = gain[k / area % shape[1]] * value
            product + bias[k / area % shape[1]]
        }
    }

    /** Each element limited to -bound .. bound. */
    fun clipped(bound: Float): Tensor = map { _, value -> minOf(maxOf(value, -bound), bound) }

    operator fun plus(other: Tensor): Tensor = with(other) { a, b -> a + b }

    operator fun minus(other: Tensor): Tensor = with(other) { a, b -> a - b }

    /** Row [k] of the first axis, which it keeps: (N, ...) to (1, ...). */
    fun row(k: Int): Tensor {
        val size = values.size / shape[0]
        return Tensor(listOf(1) + shape.drop(1), values.copyOfRange(k * size, (k + 1) * size))
    }

    /** Element [k] of the first axis, without it: (N, ...) to (...). */
    operator fun get(k: Int): Tensor = Tensor(shape.drop(1), row(k).values)

    val isFinite: Boolean get() = values.all { it.isFinite() }

    /** The same numbers to the bit; -0 and 0 are two. */
    fun sameBits(other: Tensor): Boolean =
        shape == other.shape && values.indices.all { values[it].toRawBits() == other.values[it].toRawBits() }

    inline fun map(change: (Int, Float) -> Float): Tensor =
        Tensor(shape, FloatArray(values.size) { change(it, values[it]) })

    private inline fun with(other: Tensor, combine: (Float, Float) -> Float): Tensor {
        if (other.shape != shape) throw UsageError("a tensor of shape $shape does not go with one of ${other.shape}.")
        return map { k, value -> combine(value, other.values[k]) }
    }
}

operator fun Float.times(x: Tensor): Tensor = x.map { _, value -> this * value }

private fun requireSize(shape: List<Int>, size: Int) {
    if (shape.fold(1L) { product, side -> product * side } != size.toLong()) {
        throw UsageError("a tensor of shape $shape does not have $size elements.")
    }
}
