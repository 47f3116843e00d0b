package mobileexport.core

import kotlin.math.log10

/** Peak signal-to-noise ratio in dB for a peak of 2 (values in [-1, 1]), in doubles; 200 for equal tensors. */
fun psnr(a: Tensor, b: Tensor): Double {
    if (a.shape != b.shape) throw UsageError("a tensor of shape ${a.shape} is not compared with one of ${b.shape}.")
    val squares = a.values.indices.sumOf { k ->
        val difference = a.values[k].toDouble() - b.values[k].toDouble()
        difference * difference
    }
    val error = squares / a.values.size
    return if (error == 0.0) 200.0 else minOf(10 * log10(4 / error), 200.0)
}
