package mobileexport.core

import mobileexport.core.Corpus.get
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class ExplanationTest {
    @Test
    fun everyNameOfTheBundlesPageHasItsOwnSentence() {
        val page = decodeUtf8(Files.readAllBytes(Corpus.folder.resolve("../../docs/bundle-format.md")))
        val table = page.substringAfter("## What a reader checks, in this order").substringBefore("\n## ")
        val names = table.lines().filter { it.startsWith("| `") }.flatMap { line ->
            Regex("`([a-z0-9-]+)`").findAll(line.split('|')[1]).map { it.groupValues[1] }
        }
        assertTrue(names.size > 15)
        for (name in names) {
            val sentence = explanation(BundleError(name, "detail"))
            assertTrue("($name)" !in sentence && sentence.endsWith("."), "$name: $sentence")
        }
    }

    @Test
    fun everyRefusalOfACorrectionIsASentence() {
        for (name in Corpus.entries("hostile").map { it["error"].string!! }.toSet()) {
            val sentence = explanation(FormatError(name, "detail"))
            assertTrue(sentence.endsWith(".") && sentence.length > 40, sentence)
        }
        assertEquals(
            "The bundle's correction was made for another network. Copy both from the same export.",
            explanation(FormatError("other-artifact", "detail")),
        )
        assertEquals("Cancelled.", explanation(Cancelled()))
        assertEquals(
            "The network computed a number that is none at step 3, so there is no image.",
            explanation(NonFiniteError("sample", 2)),
        )
    }
}
