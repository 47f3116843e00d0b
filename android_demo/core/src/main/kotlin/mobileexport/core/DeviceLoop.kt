package mobileexport.core

/**
 * The sampler: a plan, its correction and a network, in float32, in a fixed order of operations.
 *
 * docs/correction-format.md states the order in words, correction/loop.py is the same program in Python: given the same
 * model outputs, both end at the same bits. Without a correction nothing is corrected.
 */
class DeviceLoop(private val plan: SamplingPlan, private val correction: Correction? = null) {
    /**
     * After step [index] of [steps]: the sample that the network saw, what it said (corrected), the converted output,
     * which is the picture as far as it has formed, and the next sample.
     */
    class Step(val index: Int, val steps: Int, val x: Tensor, val m: Tensor, val y: Tensor, val next: Tensor)

    /**
     * The last sample, (B, C, H, W). [noise]: of the same shape, unit normal; [stepNoise]: fresh noise of a step, asked
     * for only where the plan adds some. Throws Cancelled before the step at which [cancellation] is noticed.
     */
    fun sample(
        noise: Tensor,
        denoiser: Denoiser,
        stepNoise: (Int) -> Tensor = { throw UsageError("step $it adds noise, but there is none.") },
        cancellation: Cancellation = Cancellation(),
        onStep: (Step) -> Unit = {},
    ): Tensor {
        check(noise)
        var x = plan.initSigma * noise
        var history = listOf<Tensor>() // converted outputs, newest first
        for (i in 0 until plan.steps) {
            cancellation.check()
            if (correction != null) x = correct(correction.inputGain[i], correction.inputBias[i], x)
            var m = predict(denoiser, i, x)
            if (correction != null) m = correct(correction.outputGain[i], correction.outputBias[i], m)
            val (next, y) = advance(i, x, m, history, stepNoise)
            onStep(Step(i, plan.steps, x, m, y, next))
            x = next
            history = (listOf(y) + history).take(plan.history)
        }
        return x
    }

    private fun correct(gain: FloatArray, bias: FloatArray, x: Tensor): Tensor {
        if (gain.all { it == 1f } && bias.all { it == 0f }) return x
        return x.scaled(gain, bias)
    }

    private fun predict(denoiser: Denoiser, i: Int, x: Tensor): Tensor {
        val m = denoiser.predict(plan.inputScale[i] * x, plan.timestep[i])
        if (m.shape != x.shape) throw UsageError("the network must return the shape ${x.shape}, got ${m.shape}.")
        if (!m.isFinite) throw NonFiniteError("model output", i)
        return m
    }

    private fun advance(
        i: Int, x: Tensor, m: Tensor, history: List<Tensor>, stepNoise: (Int) -> Tensor,
    ): Pair<Tensor, Tensor> {
        var y = plan.p[i] * x + plan.q[i] * m
        if (plan.clip[i] > 0) y = y.clipped(plan.clip[i])
        var next = plan.a[i] * x + plan.b[i] * m
        for ((j, past) in (listOf(y) + history).take(plan.history).withIndex()) {
            if (plan.w[i][j] != 0f) next = next + plan.w[i][j] * past
        }
        if (plan.sigma[i] != 0f) next = next + plan.sigma[i] * stepNoise(i)
        if (!next.isFinite) throw NonFiniteError("sample", i)
        return Pair(next, y)
    }

    private fun check(noise: Tensor) {
        if (noise.shape.size != 4) throw UsageError("noise must be (B, C, H, W), got ${noise.shape}.")
        if (correction != null && (correction.steps != plan.steps || correction.channels != noise.shape[1])) {
            throw UsageError(
                "the correction is for ${correction.steps} steps and ${correction.channels} channels, but the plan " +
                    "has ${plan.steps} steps and the noise ${noise.shape[1]} channels.",
            )
        }
    }
}
