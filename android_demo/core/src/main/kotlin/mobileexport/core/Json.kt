package mobileexport.core

/** A JSON value as RFC 8259 has it. Numbers stay text until somebody says what they must be. */
sealed interface Json {
    data object Null : Json
    data class Bool(val value: Boolean) : Json
    data class Number(val text: String) : Json
    data class Text(val value: String) : Json
    data class Items(val values: List<Json>) : Json
    data class Members(val values: Map<String, Json>) : Json

    val members: Map<String, Json>? get() = (this as? Members)?.values
    val items: List<Json>? get() = (this as? Items)?.values
    val string: String? get() = (this as? Text)?.value
    val bool: Boolean? get() = (this as? Bool)?.value

    /** A number of 1 to 15 digits, without sign, fraction and exponent: exact in every language. */
    val size: Long? get() = (this as? Number)?.text?.takeIf { it.length <= 15 && it.all(::isDigit) }?.toLong()

    /** A number without fraction and exponent that fits into 64 bits. */
    val whole: Long? get() = (this as? Number)?.text?.toLongOrNull()

    /** Any number that is finite as a double. */
    val number: Double? get() = (this as? Number)?.text?.toDouble()?.takeIf { it.isFinite() }
}

internal fun isDigit(letter: Char) = letter in '0'..'9'
