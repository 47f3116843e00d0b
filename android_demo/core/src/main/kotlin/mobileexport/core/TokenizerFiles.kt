package mobileexport.core

import java.nio.file.Path

/** The tokenizer's files in a bundle: vocab.json and merges.txt, or tokenizer.json. */
internal class TokenizerFiles(files: List<Path>) {
    private val files = files.associateBy { it.fileName.toString() }

    /** [length]: tokens of a prompt; [limit]: how many tokens the text encoder knows. */
    fun tokenizer(length: Int, limit: Int): Tokenizer {
        val (vocabulary, merges) = tables()
        if (vocabulary.values.maxOrNull()?.let { it < limit } != true) {
            throw UsageError("the tokenizer has more tokens than the $limit that the text encoder knows.")
        }
        return Tokenizer(vocabulary, merges, specials(), length)
    }

    private fun tables(): Pair<Map<String, Int>, List<Pair<String, String>>> {
        val (words, pairs) = Pair(files["vocab.json"], files["merges.txt"])
        if (words != null && pairs != null) {
            val lines = decodeUtf8(readBounded(pairs, MAX_FILE)).lines()
            val merges = lines.filter { it.isNotEmpty() && !it.startsWith("#version") }
            return Pair(numbers(json(words)), merges.map { pair(it.split(' ')) })
        }
        val model = files["tokenizer.json"]?.let(::json)?.members?.get("model")?.members
            ?: throw UsageError("the bundle has no tokenizer: it needs vocab.json and merges.txt, or tokenizer.json.")
        val merges = model["merges"]?.items.orEmpty().map { merge ->
            pair(merge.string?.split(' ') ?: merge.items?.mapNotNull { it.string }.orEmpty())
        }
        return Pair(numbers(model["vocab"]), merges)
    }

    /** The special tokens that the files name; tokenizer_config.json comes first. */
    private fun specials(): Map<String, String> {
        val found = HashMap<String, String>()
        for (file in listOf("special_tokens_map.json", "tokenizer_config.json")) {
            val content = files[file]?.let(::json)?.members ?: continue
            for (name in Tokenizer.NAMES) {
                val token = content[name]
                (token?.string ?: token?.members?.get("content")?.string)?.let { found[name] = it }
            }
        }
        return found
    }

    private fun json(path: Path): Json = parseJson(decodeUtf8(readBounded(path, MAX_FILE)), MAX_DEPTH)

    private fun numbers(value: Json?): Map<String, Int> = value?.members?.mapValues { (token, number) ->
        number.size?.takeIf { it <= Int.MAX_VALUE }?.toInt()
            ?: throw UsageError("the tokenizer's number for '$token' is none.")
    } ?: throw UsageError("the tokenizer has no vocabulary.")

    private fun pair(tokens: List<String>): Pair<String, String> {
        if (tokens.size != 2) throw UsageError("a merge of the tokenizer is $tokens, not two tokens.")
        return Pair(tokens[0], tokens[1])
    }

    private companion object {
        const val MAX_FILE = 32L shl 20
        const val MAX_DEPTH = 32
    }
}
