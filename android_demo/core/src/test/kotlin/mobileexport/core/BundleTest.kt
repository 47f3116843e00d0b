package mobileexport.core

import mobileexport.core.Corpus.get
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class BundleTest {
    @TestFactory
    fun bundlesAreOpenedOrRefusedByName() = Corpus.entries("bundles").map { case ->
        dynamicTest(case["name"].string!!) {
            val folder = Corpus.bundle(case["edits"].items!!)
            val expected = case["error"].string
            if (expected == null) {
                assertEquals("golden — tiny", Bundle.open(folder).name)
            } else {
                assertEquals(expected, assertFailsWith<Refusal> { Bundle.open(folder) }.name)
            }
        }
    }

    @Test
    fun whatTheManifestSays() {
        val bundle = Bundle.open(Corpus.bundle())
        val manifest = bundle.manifest
        assertEquals(listOf("cat", "Füchsin 🦊"), manifest.model.classes)
        assertEquals(2L, manifest.model.nullLabel)
        assertEquals(listOf(1, 3, 4, 5), manifest.sample.shape)
        assertEquals(listOf("ddim", "w8a8"), listOf(manifest.sampler, manifest.precision))
        assertEquals(Pair(2.5, 4), Pair(manifest.guidance, manifest.steps))
        assertEquals(listOf("coreml", "executorch"), manifest.parts.keys.toList())
        assertEquals(listOf(true, false, true, true), bundle.part("executorch").keptSteps)
        val signature = bundle.component("executorch", "unet").signature
        assertEquals(listOf("sample", "timestep", "class_labels"), signature.inputs.map { it.name })
        assertEquals("noise_pred float32 [1, 3, 4, 5]", signature.output.toString())
        assertEquals(4, bundle.correctionFile("coreml").plan.steps)
    }

    @Test
    fun anotherPartMayBeLeftOut() {
        val folder = Corpus.bundle()
        for (file in listOf("correction.safetensors", "golden.safetensors", "unet.mlpackage/Data/weights.bin")) {
            Files.delete(folder.resolve("coreml/$file"))
        }
        assertEquals("missing-file", assertFailsWith<BundleError> { Bundle.open(folder) }.name)
        assertEquals(4, Bundle.open(folder, setOf("executorch")).correctionFile("executorch").plan.steps)
        val error = assertFailsWith<UsageError> { Bundle.open(folder, setOf("tflite")) }
        assertContains(error.message!!, "coreml, executorch")
    }

    @Test
    fun anyByteOfAnyFileCounts() {
        for (path in listOf("executorch/unet.pte", "coreml/golden.safetensors", WEIGHTS)) {
            val folder = Corpus.bundle()
            val file = folder.resolve(path)
            val bytes = Files.readAllBytes(file)
            for (k in listOf(0, bytes.size / 2, bytes.size - 1)) {
                Files.write(file, bytes.copyOf().also { it[k] = (it[k].toInt() xor 4).toByte() })
                assertEquals("changed-file", assertFailsWith<BundleError> { Bundle.open(folder) }.name)
            }
        }
    }

    @Test
    fun namesAreSortedByCodePoint() {
        val names = listOf("a", "a/b", "é", "\uFF5E", "\uD83D\uDE00") // in UTF-16 the last two are the other way round
        assertEquals(names, names.reversed().sortedWith(CodePointOrder))
    }

    private companion object {
        const val WEIGHTS = "coreml/unet.mlpackage/Data/weights.bin"
    }
}
