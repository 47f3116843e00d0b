package mobileexport.core

/** A picture as a screen takes it: one ARGB integer a pixel, row by row. */
class Pixels private constructor(val width: Int, val height: Int, val argb: IntArray) {
    companion object {
        /** The first sample of (B, C, H, W) in [-1, 1], of one channel (grey) or three (red, green, blue). */
        fun of(image: Tensor): Pixels {
            val (_, channels, height, width) = image.shape
            if (channels != 1 && channels != 3) throw UsageError("a picture has 1 or 3 channels, got $channels.")
            val area = height * width
            val colours = IntArray(area) { k ->
                val (red, green, blue) = List(3) { byte(image.values[it % channels * area + k]) }
                0xFF shl 24 or (red shl 16) or (green shl 8) or blue
            }
            return Pixels(width, height, colours)
        }

        /**
         * A picture of a sample on its way. Latents are no colours: of those, three channels (or one) are shown on the
         * scale of their largest value, which lets the shapes be seen.
         */
        fun preview(sample: Tensor): Pixels {
            val (_, channels, height, width) = sample.shape
            if (channels == 1 || channels == 3) return of(sample)
            val shown = if (channels >= 3) 3 else 1
            val values = sample.values.copyOf(shown * height * width)
            val largest = values.maxOf { kotlin.math.abs(it) }.takeIf { it > 0 } ?: 1f
            return of(Tensor(listOf(1, shown, height, width), FloatArray(values.size) { values[it] / largest }))
        }

        /** -1 is 0 and 1 is 255, rounded half to even; what is beyond is clamped. */
        private fun byte(value: Float): Int = Math.rint((value.toDouble().coerceIn(-1.0, 1.0) + 1.0) * 127.5).toInt()
    }
}
