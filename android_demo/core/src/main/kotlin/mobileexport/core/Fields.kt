package mobileexport.core

/** The fields of one JSON object of a manifest, each with its type; [where] is for messages. */
internal class Fields(value: Json?, private val where: String) {
    private val members: Map<String, Json> = value?.members ?: refuse("it", "an object")

    fun string(key: String): String = get(key)?.string ?: refuse(key, "a text")

    fun whole(key: String): Long = get(key)?.whole ?: refuse(key, "a whole number")

    fun number(key: String): Double = get(key)?.number ?: refuse(key, "a number")

    fun items(key: String): List<Json> = get(key)?.items ?: refuse(key, "a list")

    fun members(key: String): Map<String, Json> = get(key)?.members ?: refuse(key, "an object")

    fun fields(key: String): Fields = Fields(get(key), "$where.$key")

    fun strings(key: String): List<String> = items(key).map { it.string ?: refuse(key, "a list of texts") }

    fun bools(key: String): List<Boolean> = items(key).map { it.bool ?: refuse(key, "a list of true and false") }

    /** Every value of an object is a number. */
    fun numbers(key: String) {
        for (value in members(key).values) value.number ?: refuse(key, "an object of numbers")
    }

    /** null where the key is missing or null. */
    fun <T> optional(key: String, read: (String) -> T): T? = if (isNull(key)) null else read(key)

    fun isNull(key: String): Boolean = members[key].let { it == null || it == Json.Null }

    private fun get(key: String): Json? = members[key]

    fun refuse(key: String, wanted: String): Nothing =
        throw BundleError("bad-manifest", "$where.$key is missing or is not $wanted.")
}
