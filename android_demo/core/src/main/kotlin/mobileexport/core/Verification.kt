package mobileexport.core

import java.util.Locale
import kotlin.math.abs

/**
 * What a device found when it replayed a golden record in lock-step. Two numbers, never merged.
 *
 * Conversion parity: at each of [steps] this device's network was asked beside the recorded one, at the same sample.
 * Sampler parity: the loop went on from the recorded outputs; its last sample differs from the recorded one by
 * [sampleError] at most, and all bits are equal or not. [noiseEqual]: the generator gives the recorded noise.
 */
class Verification(
    val steps: List<Step>,
    val sampleError: Float,
    val sampleEqual: Boolean,
    val noiseEqual: Boolean,
) {
    class Step(val index: Int, val timestep: Float, val psnr: Double, val equal: Boolean, val nanoseconds: Long)

    /** At one step a flipped rounding may cost percents; a wrong network is wrong at most of them. */
    val conversionPassed: Boolean
        get() = steps.all { it.psnr >= MIN_PSNR } && 2 * steps.count { it.psnr >= USUAL_PSNR } >= steps.size

    val samplerPassed: Boolean get() = sampleEqual && noiseEqual
    val passed: Boolean get() = conversionPassed && samplerPassed

    /** All of it as text to share; [about] says what ran where, a line each. */
    fun report(about: List<String>): String = buildString {
        about.forEach(::appendLine)
        appendLine()
        appendLine("Sampler parity: ${verdict(samplerPassed)}")
        appendLine("  noise: ${if (noiseEqual) "equal to the bit" else "DIFFERENT"}")
        val sample = if (sampleEqual) "equal to the bit" else "DIFFERENT, by up to $sampleError"
        appendLine("  last sample of the recorded outputs: $sample")
        appendLine()
        appendLine("Conversion parity: ${verdict(conversionPassed)} $NEEDED")
        appendLine("step  timestep  PSNR dB    seconds")
        for (step in steps) {
            val (mark, seconds) = Pair(if (step.equal) "=" else " ", step.nanoseconds / 1e9)
            appendLine(ROW.format(Locale.ROOT, step.index, step.timestep, step.psnr, mark, seconds))
        }
        appendLine()
        appendLine("\"=\": equal to the bit; 200 dB is the most that is shown.")
    }

    private fun verdict(passed: Boolean) = if (passed) "passed" else "FAILED"

    companion object {
        /** dB, at each step and at half of them or more: another processor may round differently. */
        const val MIN_PSNR = 20.0
        const val USUAL_PSNR = 35.0
        private val NEEDED = "(at least ${MIN_PSNR.toInt()} dB at each step, ${USUAL_PSNR.toInt()} dB at half of them)"
        private const val ROW = "%4d  %8.2f  %7.2f%s  %8.3f"

        /** Replays [golden] with its part's plan and correction; [denoiser]: the part's network, with its guidance. */
        fun of(
            file: CorrectionFile,
            golden: Golden,
            denoiser: Denoiser,
            cancellation: Cancellation = Cancellation(),
            onEvent: (Sampling.Event) -> Unit = {},
        ): Verification {
            val steps = ArrayList<Step>()
            val recorded = Denoiser { sample, timestep ->
                val expected = golden.outputs[steps.size]
                val begun = System.nanoTime()
                val found = denoiser.predict(sample, timestep)
                val nanoseconds = System.nanoTime() - begun
                if (!found.isFinite) throw NonFiniteError("model output", steps.size)
                steps += Step(steps.size, timestep, psnr(found, expected), found.sameBits(expected), nanoseconds)
                expected
            }
            val noise = Noise(Golden.SEED)
            val shape = golden.noise.shape
            val loop = DeviceLoop(file.plan, file.correction)
            val last = loop.sample(golden.noise, recorded, { noise.step(shape, it) }, cancellation) {
                onEvent(Sampling.Event.Stepped(it, steps.last().nanoseconds))
            }
            return Verification(
                steps,
                (last - golden.sampleCorrected).values.maxOf(::abs),
                last.sameBits(golden.sampleCorrected),
                noise.initial(shape).sameBits(golden.noise),
            )
        }
    }
}
