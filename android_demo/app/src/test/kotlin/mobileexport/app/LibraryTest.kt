package mobileexport.app

import kotlin.test.Test
import kotlin.test.assertEquals

class LibraryTest {
    @Test
    fun aBundleIsKeptUnderANameThatIsSafeOnEveryFileSystem() {
        val names = mapOf(
            "emoji32-w4a8" to "emoji32-w4a8",
            "Mein Bündel 2" to "Mein Bündel 2",
            "../other" to "_other",
            ".hidden" to "hidden",
            "a/b\\c:d" to "a_b_c_d",
            "" to "bundle",
            null to "bundle",
            "x".repeat(200) to "x".repeat(80),
        )
        assertEquals(names, names.mapValues { (given, _) -> Library.storeName(given) })
    }
}
