package mobileexport.core

private val PATTERN = Regex("(0|[1-9][0-9]{0,5})[.](0|[1-9][0-9]{0,5})")

/** The major number of "MAJOR.MINOR": ASCII digits, at most six each, no leading zeros. null: it has another form. */
internal fun majorVersion(text: String?): Int? = text?.let(PATTERN::matchEntire)?.groupValues?.get(1)?.toInt()
