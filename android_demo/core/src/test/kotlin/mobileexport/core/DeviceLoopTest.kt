package mobileexport.core

import mobileexport.core.Corpus.get
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class DeviceLoopTest {
    @TestFactory
    fun everyRecordedSampleBitForBit() = Corpus.entries("cases").map { case ->
        dynamicTest(case["name"].string!!) {
            val file = CorrectionFile.read(
                Corpus.folder.resolve(case["correction"].string!!), case["artifact_sha256"].string,
            )
            val record = Corpus.record(case["record"].string!!)
            val given = ArrayList<Tensor>()
            val conditional = replay(record.getValue("outputs"), given)
            val denoiser = record["outputs_null"]?.let { outputs ->
                GuidedDenoiser(conditional, replay(outputs, ArrayList()), case["guidance"].number!!.toFloat())
            } ?: conditional
            val samples = ArrayList<Tensor>()
            val last = DeviceLoop(file.plan, file.correction).sample(
                record.getValue("noise"), denoiser, { record.getValue("step_noise")[it] },
            ) { samples += it.next }
            assertEquals(file.plan.steps, samples.size)
            for (i in samples.indices) {
                assertTrue(given[i].sameBits(record.getValue("inputs")[i]), "input of step $i")
                assertTrue(samples[i].sameBits(record.getValue("samples")[i]), "sample after step $i")
            }
            assertTrue(last.sameBits(samples.last()))
        }
    }

    @Test
    fun anIdentityCorrectionIsNone() {
        val file = CorrectionFile.read(Corpus.folder.resolve("cases/ddim.correction.safetensors"))
        val record = Corpus.record("cases/ddim.record.safetensors")
        val last = DeviceLoop(file.plan).sample(
            record.getValue("noise"), replay(record.getValue("outputs"), ArrayList()),
        )
        assertTrue(last.sameBits(record.getValue("samples")[file.plan.steps - 1]))
    }

    @Test
    fun aNumberThatIsNoneStopsTheLoopWithItsStep() {
        val file = CorrectionFile.read(Corpus.folder.resolve("cases/ddim.correction.safetensors"))
        var calls = 0
        val broken = Denoiser { sample, _ -> if (calls++ == 2) Float.NaN * sample else sample }
        val error = assertFailsWith<NonFiniteError> { DeviceLoop(file.plan).sample(noise(3), broken) }
        assertEquals(Pair("model output", 2), Pair(error.stage, error.step))
        val large = Denoiser { sample, _ -> sample.map { _, _ -> Float.MAX_VALUE } }
        assertEquals("sample", assertFailsWith<NonFiniteError> { DeviceLoop(file.plan).sample(noise(3), large) }.stage)
    }

    @Test
    fun shapesThatDoNotFitAreRefused() {
        val file = CorrectionFile.read(Corpus.folder.resolve("cases/ddim-corrected.correction.safetensors"))
        val loop = DeviceLoop(file.plan, file.correction)
        val same = Denoiser { sample, _ -> sample }
        assertContains(assertFailsWith<UsageError> { loop.sample(noise(4), same) }.message!!, "3 channels")
        assertFailsWith<UsageError> { loop.sample(noise(3)[0], same) }
        assertFailsWith<UsageError> { loop.sample(noise(3), { sample, _ -> sample[0] }) }
        val noisy = CorrectionFile.read(Corpus.folder.resolve("cases/ddim-eta1.correction.safetensors"))
        assertFailsWith<UsageError> { DeviceLoop(noisy.plan).sample(noise(3), same) }
    }

    @Test
    fun aCancelledLoopAsksNoMore() {
        val file = CorrectionFile.read(Corpus.folder.resolve("cases/ddim.correction.safetensors"))
        val cancellation = Cancellation()
        var calls = 0
        val counting = Denoiser { sample, _ -> sample.also { calls++ } }
        assertFailsWith<Cancelled> {
            DeviceLoop(file.plan).sample(noise(3), counting, cancellation = cancellation) {
                if (it.index == 1) cancellation.cancel()
            }
        }
        assertEquals(2, calls)
    }

    private fun noise(channels: Int) = Noise(1).initial(listOf(1, channels, 4, 5))

    private fun replay(outputs: Tensor, given: MutableList<Tensor>) = Denoiser { sample, _ ->
        given += sample
        outputs[given.size - 1]
    }
}
