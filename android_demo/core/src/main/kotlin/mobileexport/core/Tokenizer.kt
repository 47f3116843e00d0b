package mobileexport.core

/**
 * Prompts to token numbers, as transformers' CLIPTokenizer does: lower case, words, byte-pair merges (Sennrich et al.,
 * arXiv 1508.07909, on bytes).
 *
 * [merges]: pairs of tokens, those to be merged first first; [specials]: `bos_token`, `eos_token`, `unk_token` and
 * `pad_token`, those missing are CLIP's; [length]: as many tokens as the text encoder takes.
 */
class Tokenizer(
    private val vocabulary: Map<String, Int>,
    merges: List<Pair<String, String>>,
    specials: Map<String, String>,
    private val length: Int,
) {
    private val tokens = mapOf("bos_token" to "<|startoftext|>", "eos_token" to END, "unk_token" to END, "pad_token" to END) +
        specials.filterKeys { it in NAMES }
    private val special: Map<String, Int> = tokens.values.associateWith(::number)
    private val ranks = HashMap<Pair<Int, Int>, Int>() // earlier merges first
    private val merged = HashMap<Pair<Int, Int>, Int>()

    init {
        if (length < 2) throw UsageError("a prompt has at least 2 tokens, got $length.")
        for ((rank, merge) in merges.withIndex()) {
            val pair = Pair(number(merge.first), number(merge.second))
            if (ranks.putIfAbsent(pair, rank) == null) merged[pair] = number(merge.first + merge.second)
        }
    }

    /** Start, words, end, padding; words that do not fit are cut. */
    fun ids(prompt: String): List<Int> {
        val ids = listOf(special("bos_token")) + words(prompt).take(length - 2) + special("eos_token")
        return ids + List(length - ids.size) { special("pad_token") }
    }

    private fun words(prompt: String): List<Int> {
        val found = ArrayList<Int>()
        var rest = prompt
        while (true) {
            val (at, token) = rest.findAnyOf(special.keys) ?: break
            found += Words.split(rest.substring(0, at)).flatMap(::word)
            found += special.getValue(token)
            rest = rest.substring(at + token.length)
        }
        return found + Words.split(rest).flatMap(::word)
    }

    private fun word(word: String): List<Int> {
        val letters = word.toByteArray().map { LETTERS[it.toInt() and 0xFF].toString() }
        var symbols = letters.mapIndexed { k, letter ->
            vocabulary[if (k == letters.size - 1) "$letter</w>" else letter] ?: special("unk_token")
        }
        while (true) {
            val pair = symbols.zipWithNext().filter { it in ranks }.minByOrNull(ranks::getValue) ?: return symbols
            symbols = merge(symbols, pair)
        }
    }

    private fun merge(symbols: List<Int>, pair: Pair<Int, Int>): List<Int> {
        val found = ArrayList<Int>()
        var k = 0
        while (k < symbols.size) {
            val here = k + 1 < symbols.size && Pair(symbols[k], symbols[k + 1]) == pair
            found += if (here) merged.getValue(pair) else symbols[k]
            k += if (here) 2 else 1
        }
        return found
    }

    private fun special(name: String): Int = special.getValue(tokens.getValue(name))

    private fun number(token: String): Int =
        vocabulary[token] ?: throw UsageError("the tokenizer has no number for '$token'.")

    companion object {
        private const val END = "<|endoftext|>"
        internal val NAMES = listOf("bos_token", "eos_token", "unk_token", "pad_token")

        /** A printable letter for each byte: itself, or the next free one from U+0100. */
        private val LETTERS: List<Char> = run {
            var free = 0x100
            List(256) { if (it in 33..126 || it in 161..172 || it >= 174) it.toChar() else free++.toChar() }
        }
    }
}
