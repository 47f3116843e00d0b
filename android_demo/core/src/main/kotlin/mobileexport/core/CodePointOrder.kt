package mobileexport.core

/** Strings by code point, as the formats sort names; String's own order is by UTF-16 unit. */
object CodePointOrder : Comparator<String> {
    override fun compare(a: String, b: String): Int {
        var k = 0
        while (k < a.length && k < b.length) {
            val left = a.codePointAt(k)
            val right = b.codePointAt(k)
            if (left != right) return left.compareTo(right)
            k += Character.charCount(left)
        }
        return a.length.compareTo(b.length)
    }
}
