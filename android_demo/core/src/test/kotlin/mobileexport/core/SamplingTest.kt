package mobileexport.core

import mobileexport.core.Corpus.get
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class SamplingTest {
    private val bundle = Bundle.open(Corpus.bundle())
    private val golden = Golden.read(bundle, "executorch", bundle.manifest.steps)
    private val loader = FakeLoader()
    private val sampling = Sampling(bundle, "executorch", loader)

    /** Networks that answer with what was recorded of the guided network: equal branches make guidance do nothing. */
    private inner class FakeLoader : NetworkLoader {
        var loaded = 0
        var closed = 0
        var answer: (Int, Tensor) -> Tensor = { _, output -> output }
        val told = ArrayList<Map<String, Input>>()

        override fun load(artifact: java.nio.file.Path, signature: Signature): Network {
            assertTrue(Files.isRegularFile(artifact))
            loaded++
            return object : Network {
                override fun run(inputs: Map<String, Input>): Tensor {
                    assertEquals(loaded, closed + 1, "runs only while it is open")
                    signature.ordered(inputs)
                    told += inputs
                    val step = (told.size - 1) / 2
                    return answer(step, golden.outputs[step])
                }

                override fun close() {
                    closed++
                }
            }
        }
    }

    private fun assertFreed() = assertEquals(Pair(1, 1), Pair(loader.loaded, loader.closed))

    @Test
    fun theRecordedOutputsGiveTheRecordedSample() {
        val events = ArrayList<Sampling.Event>()
        val image = sampling.image(Sampling.Request(subject = 1), onEvent = events::add)
        assertTrue(image.sameBits(golden.sampleCorrected))
        assertFreed()
        assertEquals("unet", (events.first() as Sampling.Event.Loading).component)
        val steps = events.drop(1).map { (it as Sampling.Event.Stepped).step }
        assertEquals(listOf(0, 1, 2, 3), steps.map { it.index })
        assertTrue(steps.last().next.sameBits(image))
        val labels = loader.told.map { (it.getValue("class_labels") as WholeTensor).values.single() }
        assertEquals(List(4) { listOf(2L, 1L) }.flatten(), labels)
    }

    @Test
    fun withoutTheCorrectionItIsAnotherSample() {
        assertFalse(sampling.image(Sampling.Request(corrected = false)).sameBits(golden.sampleCorrected))
    }

    @Test
    fun cancellingFreesTheNetwork() {
        val cancellation = Cancellation()
        assertFailsWith<Cancelled> {
            sampling.image(Sampling.Request(), cancellation) {
                if (it is Sampling.Event.Stepped && it.step.index == 1) cancellation.cancel()
            }
        }
        assertEquals(4, loader.told.size)
        assertFreed()
    }

    @Test
    fun anErrorOfTheNetworkFreesIt() {
        loader.answer = { step, output -> if (step == 2) throw IllegalStateException("out of memory") else output }
        assertFailsWith<IllegalStateException> { sampling.image(Sampling.Request()) }
        assertFreed()
    }

    @Test
    fun aNumberThatIsNoneFreesTheNetwork() {
        loader.answer = { step, output -> if (step == 3) Float.POSITIVE_INFINITY * output else output }
        assertEquals(3, assertFailsWith<NonFiniteError> { sampling.image(Sampling.Request()) }.step)
        assertFreed()
    }

    @Test
    fun anErrorOfTheScreenFreesTheNetwork() {
        assertFailsWith<IllegalArgumentException> {
            sampling.image(Sampling.Request()) { if (it is Sampling.Event.Stepped) throw IllegalArgumentException() }
        }
        assertFreed()
    }

    @Test
    fun theUnetIsFreedBeforeTheDecoderIsLoaded() {
        val edits = Corpus.entries("bundles").single { it["name"].string == "text-and-latents" }["edits"].items!!
        val folder = Corpus.bundle(edits)
        // The edit also gives the bundle text, with a network in place of embeddings: no subject can be read from it.
        assertFailsWith<FormatError> { Sampling(Bundle.open(folder), "executorch", loader) }
        val latents = Bundle.open(latentBundle())
        val error = assertFailsWith<UsageError> { Sampling(latents, "executorch", loader).image(Sampling.Request()) }
        assertContains(error.message!!, "no vae_decoder for executorch; it has: unet")
        assertFreed()
    }

    private fun latentBundle() = Corpus.bundle().also { folder ->
        val manifest = folder.resolve("manifest.json")
        val sizes = """"channels": 3, "image_channels": 3, "factor": 1, "scaling_factor": 2, "shift_factor": 0"""
        val latents = """{"kind": "kl", $sizes}"""
        val text = decodeUtf8(Files.readAllBytes(manifest))
        Files.write(manifest, text.replace("\"latents\": null", "\"latents\": $latents").toByteArray())
    }

    @Test
    fun subjectsThatAreNotThereAreRefused() {
        assertEquals(listOf("cat", "Füchsin 🦊"), sampling.subjects.names)
        assertFailsWith<UsageError> { sampling.image(Sampling.Request(subject = 2)) }
        assertFailsWith<UsageError> { sampling.image(Sampling.Request(seed = -1)) }
        assertEquals(0, loader.loaded)
    }

    @Test
    fun theRecordIsVerifiedInLockStep() {
        val exact = sampling.verify()
        assertFreed()
        assertTrue(exact.passed && exact.steps.all { it.equal && it.psnr == 200.0 } && exact.sampleError == 0f)
        assertEquals(listOf(999f, 749f, 499f, 249f), exact.steps.map { it.timestep })
        val report = exact.report(listOf("bundle: golden", "device: none"))
        assertContains(report, "Sampler parity: passed\n  noise: equal to the bit")
        assertContains(report, "   3    249.00   200.00=")
    }

    @Test
    fun aNetworkThatDiffersIsToldByTheStep() {
        val found = verified(listOf(0f, 0.3f, 0f, 0f))
        assertEquals(listOf(200, 16, 200, 200), found.steps.map { it.psnr.toInt() })
        assertTrue(found.samplerPassed && !found.conversionPassed && !found.passed)
        val needed = "(at least 20 dB at each step, 35 dB at half of them)"
        assertContains(found.report(emptyList()), "Conversion parity: FAILED $needed")
        assertFreed()
    }

    @Test
    fun halfOfTheStepsMayDifferByAFlippedRounding() {
        val found = verified(listOf(0f, 0.05f, 0.05f, 0f))
        assertEquals(listOf(200, 32, 32, 200), found.steps.map { it.psnr.toInt() })
        assertTrue(found.passed)
    }

    @Test
    fun mostOfTheStepsMayNot() {
        val found = verified(listOf(0f, 0.05f, 0.05f, 0.05f))
        assertEquals(listOf(200, 32, 32, 32), found.steps.map { it.psnr.toInt() })
        assertTrue(found.samplerPassed && !found.conversionPassed)
    }

    /** By a network whose outputs are off by so much at each step. */
    private fun verified(offsets: List<Float>): Verification {
        loader.answer = { step, output -> output.map { _, value -> value + offsets[step] } }
        return sampling.verify()
    }
}
