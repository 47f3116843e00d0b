package mobileexport.core

import java.text.Normalizer
import java.util.Locale

/** Text in lower case as words: runs of letters, single digits, runs of anything else but blanks, English endings. */
internal object Words {
    private val ENDINGS = listOf("'s", "'t", "'re", "'ve", "'m", "'ll", "'d").map { it.codePoints().toArray().toList() }
    private val BLANKS = setOf(0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000) + (9..13) + (0x2000..0x200A)
    private val LETTERS = setOf(
        Character.UPPERCASE_LETTER, Character.LOWERCASE_LETTER, Character.TITLECASE_LETTER, Character.MODIFIER_LETTER,
        Character.OTHER_LETTER,
    )
    private val DIGITS = setOf(Character.DECIMAL_DIGIT_NUMBER, Character.LETTER_NUMBER, Character.OTHER_NUMBER)

    private enum class Kind { BLANK, LETTER, DIGIT, OTHER }

    fun split(text: String): List<String> {
        val points = lowered(text)
        val words = ArrayList<String>()
        var position = 0
        while (position < points.size) {
            val rest = points.subList(position, points.size)
            val length = ENDINGS.find { it == rest.take(it.size) }?.size ?: run(rest)
            if (kind(rest[0]) != Kind.BLANK) words += rest.take(length).joinToString("") { String(Character.toChars(it)) }
            position += length
        }
        return words
    }

    /** Composed, then each code point in lower case for itself. */
    private fun lowered(text: String): List<Int> =
        Normalizer.normalize(text, Normalizer.Form.NFC).codePoints().toArray().flatMap { point ->
            String(Character.toChars(point)).lowercase(Locale.ROOT).codePoints().toArray().toList()
        }

    private fun run(points: List<Int>): Int {
        val first = kind(points[0])
        return if (first == Kind.DIGIT) 1 else points.takeWhile { kind(it) == first }.size
    }

    private fun kind(point: Int): Kind = when {
        point in BLANKS -> Kind.BLANK
        Character.getType(point).toByte() in LETTERS -> Kind.LETTER
        Character.getType(point).toByte() in DIGITS -> Kind.DIGIT
        else -> Kind.OTHER
    }
}
