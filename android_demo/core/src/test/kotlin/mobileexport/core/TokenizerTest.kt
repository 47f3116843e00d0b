package mobileexport.core

import mobileexport.core.Corpus.get
import mobileexport.core.Corpus.long
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Files
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** What transformers' CLIPTokenizer gave: tests/ios_demo/make_tokenizer_cases.py. */
class TokenizerTest {
    private val cases =
        parseJson(decodeUtf8(Files.readAllBytes(Corpus.folder.resolve("../ios_demo/tokenizer_cases.json"))), 8)
    private val prompts = cases["prompts"].items!!.map { it.string!! }
    private val vocabulary = cases["vocabulary"].members!!.mapValues { it.value.long.toInt() }
    private val merges = cases["merges"].items!!.map { merge -> merge.items!!.map { it.string!! } }

    private fun tokenizer(specials: Map<String, String>) =
        Tokenizer(vocabulary, merges.map { Pair(it[0], it[1]) }, specials, cases["length"].long.toInt())

    @TestFactory
    fun everyPromptGivesTheNumbersOfTransformers() = cases["tokenizers"].items!!.flatMapIndexed { k, case ->
        val tokenizer = tokenizer(case["specials"].members!!.mapValues { it.value.string!! })
        prompts.zip(case["ids"].items!!) { prompt, ids ->
            dynamicTest("$k: $prompt") { assertEquals(ids.items!!.map { it.long.toInt() }, tokenizer.ids(prompt)) }
        }
    }

    @Test
    fun theFilesOfABundle() {
        val folder = Files.createTempDirectory("tokenizer")
        fun write(name: String, text: String): Path = Files.write(folder.resolve(name), text.toByteArray())
        val words = vocabulary.entries.joinToString(prefix = "{", postfix = "}") { "${quoted(it.key)}: ${it.value}" }
        val pairs = merges.map { it.joinToString(" ") }
        val files = listOf(
            write("vocab.json", words),
            write("merges.txt", "#version: 0.2\n" + pairs.joinToString("") { "$it\n" }),
            write("tokenizer_config.json", """{"pad_token": {"content": "!"}, "bos_token": "<|startoftext|>"}"""),
        )
        val listed = pairs.joinToString(prefix = "[", postfix = "]", transform = ::quoted)
        val whole = write("tokenizer.json", """{"model": {"vocab": $words, "merges": $listed}}""")
        val expected = tokenizer(mapOf("pad_token" to "!"))
        for (chosen in listOf(files, listOf(whole, files[2]))) {
            val found = TokenizerFiles(chosen).tokenizer(cases["length"].long.toInt(), 600)
            for (prompt in prompts) assertEquals(expected.ids(prompt), found.ids(prompt))
        }
        val error = assertFailsWith<UsageError> { TokenizerFiles(files).tokenizer(20, 100) }
        assertContains(error.message!!, "more tokens than the 100")
        assertFailsWith<UsageError> { TokenizerFiles(files.take(1)).tokenizer(20, 600) }
    }

    private fun quoted(text: String) = "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\""
}
