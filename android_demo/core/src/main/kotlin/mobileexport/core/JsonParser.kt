package mobileexport.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** The text of UTF-8 bytes. Throws FormatError "not-utf8". */
fun decodeUtf8(bytes: ByteArray, begin: Int = 0, end: Int = bytes.size): String = try {
    Charsets.UTF_8.newDecoder()
        .onMalformedInput(CodingErrorAction.REPORT)
        .onUnmappableCharacter(CodingErrorAction.REPORT)
        .decode(ByteBuffer.wrap(bytes, begin, end - begin))
        .toString()
} catch (error: CharacterCodingException) {
    throw FormatError("not-utf8", "the bytes are not UTF-8.")
}

/**
 * The one value in [text]: what RFC 8259 allows and no more, no key twice, brackets at most [maxDepth] deep, whole
 * numbers of at most [maxWhole] characters. Throws FormatError "not-json", or "duplicate-key" if all else is JSON.
 */
fun parseJson(text: String, maxDepth: Int, maxWhole: Int = Int.MAX_VALUE): Json =
    JsonParser(text, maxDepth, maxWhole).document()

private class JsonParser(val text: String, val maxDepth: Int, val maxWhole: Int) {
    var position = 0
    var depth = 0
    var repeated: String? = null

    fun document(): Json {
        val value = value()
        skipBlanks()
        if (position < text.length) unexpected()
        repeated?.let { throw FormatError("duplicate-key", "'$it' is there twice.") }
        return value
    }

    private fun value(): Json {
        skipBlanks()
        return when (next()) {
            '{' -> nested { Json.Members(members()) }
            '[' -> nested { Json.Items(items()) }
            '"' -> Json.Text(string())
            't' -> word("true", Json.Bool(true))
            'f' -> word("false", Json.Bool(false))
            'n' -> word("null", Json.Null)
            else -> Json.Number(number())
        }
    }

    private fun nested(read: () -> Json): Json {
        if (++depth > maxDepth) refuse("brackets are nested deeper than $maxDepth")
        position++
        return read().also { depth-- }
    }

    private fun members(): Map<String, Json> {
        val found = LinkedHashMap<String, Json>()
        skipBlanks()
        if (take('}')) return found
        do {
            skipBlanks()
            val key = string()
            skipBlanks()
            expect(':')
            if (found.put(key, value()) != null && repeated == null) repeated = key
            skipBlanks()
        } while (take(','))
        expect('}')
        return found
    }

    private fun items(): List<Json> {
        val found = ArrayList<Json>()
        skipBlanks()
        if (take(']')) return found
        do {
            found += value()
            skipBlanks()
        } while (take(','))
        expect(']')
        return found
    }

    private fun string(): String {
        expect('"')
        val found = StringBuilder()
        while (true) {
            when (val letter = next()) {
                '"' -> break
                '\\' -> found.append(escape())
                else -> if (letter < ' ') unexpected() else found.append(letter).also { position++ }
            }
        }
        position++
        return found.toString().also(::requireUnicode)
    }

    private fun escape(): Char {
        position++
        val letter = next()
        position++
        return when (letter) {
            '"', '\\', '/' -> letter
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> (1..4).fold(0) { code, _ -> 16 * code + hexDigit() }.toChar()
            else -> refuse("unknown escape \\$letter")
        }
    }

    private fun hexDigit(): Int {
        val digit = when (val letter = next()) {
            in '0'..'9' -> letter - '0'
            in 'a'..'f' -> letter - 'a' + 10
            in 'A'..'F' -> letter - 'A' + 10
            else -> unexpected()
        }
        position++
        return digit
    }

    private fun requireUnicode(found: String) {
        var k = 0
        while (k < found.length) {
            val letter = found[k++]
            if (letter.isHighSurrogate() && k < found.length && found[k].isLowSurrogate()) k++
            else if (letter.isSurrogate()) refuse("a lone surrogate in a string")
        }
    }

    private fun number(): String {
        val begin = position
        take('-')
        if (!take('0')) digits()
        val whole = position
        if (take('.')) digits()
        if (take('e') || take('E')) {
            if (!take('+')) take('-')
            digits()
        }
        if (position == whole && position - begin > maxWhole) refuse("a whole number of more than $maxWhole characters")
        return text.substring(begin, position)
    }

    private fun digits() {
        if (!isDigit(next())) unexpected()
        while (position < text.length && isDigit(text[position])) position++
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, position)) unexpected()
        position += word.length
        return value
    }

    private fun skipBlanks() {
        while (position < text.length && text[position] in " \t\n\r") position++
    }

    private fun next(): Char = if (position < text.length) text[position] else refuse("the text ends too early")

    private fun take(letter: Char): Boolean =
        (position < text.length && text[position] == letter).also { if (it) position++ }

    private fun expect(letter: Char) {
        if (!take(letter)) unexpected()
    }

    private fun unexpected(): Nothing =
        if (position < text.length) refuse("unexpected character") else refuse("the text ends too early")

    private fun refuse(reason: String): Nothing = throw FormatError("not-json", "$reason, at character $position.")
}
