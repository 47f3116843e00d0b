package mobileexport.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class PixelsTest {
    private fun tensor(channels: Int, vararg values: Float) =
        Tensor(listOf(1, channels, 1, values.size / channels), values)

    @Test
    fun valuesAreClampedAndRoundedHalfToEven() {
        val pixels = Pixels.of(tensor(1, -2f, -1f, 0f, 1f, 1.5f, 1f / 255))
        assertEquals(listOf(0, 0, 128, 255, 255, 128), pixels.argb.map { it and 0xFF }) // 127.5 is rounded to 128
        assertEquals(listOf(0xFF000000.toInt(), -1), listOf(pixels.argb[0], pixels.argb[3]))
        assertEquals(Pair(6, 1), Pair(pixels.width, pixels.height))
    }

    @Test
    fun coloursAreRedGreenBlue() {
        val pixels = Pixels.of(tensor(3, 1f, -1f, -1f, 1f, -1f, 0f))
        assertEquals(listOf("ffff0000", "ff00ff80"), pixels.argb.map { it.toUInt().toString(16) })
    }

    @Test
    fun otherNumbersOfChannelsAreNoPicture() {
        assertFailsWith<UsageError> { Pixels.of(tensor(2, 0f, 0f)) }
        val latents = tensor(4, 4f, -2f, 2f, 0f)
        assertEquals("ffff40bf", Pixels.preview(latents).argb.single().toUInt().toString(16))
        assertEquals("ff808080", Pixels.preview(tensor(4, 0f, 0f, 0f, 0f)).argb.single().toUInt().toString(16))
    }

    @Test
    fun latentsAreScaledAndShiftedForTheDecoder() {
        val latents = Latents("kl", 4, 3, 8, 0.18215, 0.5)
        val expected = floatArrayOf(1f / 0.18215f + 0.5f, -3f / 0.18215f + 0.5f)
        assertEquals(expected.toList(), latents.toDecoder(tensor(1, 1f, -3f)).values.toList())
    }
}
