package mobileexport.core

import mobileexport.core.Corpus.get
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlin.test.fail

class BundleStoreTest {
    private val root: Path = Files.createTempDirectory("store")
    private val store = BundleStore(root)

    private fun there() = Files.list(root).use { paths -> paths.map { it.fileName.toString() }.sorted().toList() }

    private fun zipped(folder: Path, prefix: String = ""): ByteArray {
        val bytes = ByteArrayOutputStream()
        ZipOutputStream(bytes).use { zip ->
            Files.walk(folder).use { paths ->
                paths.filter { Files.isRegularFile(it) }.forEach {
                    zip.putNextEntry(ZipEntry(prefix + folder.relativize(it).joinToString("/")))
                    zip.write(Files.readAllBytes(it))
                }
            }
        }
        return bytes.toByteArray()
    }

    @Test
    fun foldersAndArchivesAreInstalled() {
        store.installFolder("folder", Corpus.bundle())
        store.installArchive("archive", ByteArrayInputStream(zipped(Corpus.bundle())))
        store.installArchive("nested", ByteArrayInputStream(zipped(Corpus.bundle(), "some name/")))
        assertEquals(listOf("archive", "folder", "nested"), store.names())
        assertEquals(store.names(), there())
        for (name in store.names()) assertEquals("golden — tiny", store.open(name).name)
        store.remove("folder")
        assertEquals(listOf("archive", "nested"), there())
    }

    @Test
    fun onlyTheFilesOfThisDeviceAreAskedFor() {
        val source = Corpus.bundle()
        val asked = ArrayList<String>()
        val shares = ArrayList<Double>()
        val phone = BundleStore(root, setOf("executorch"))
        phone.installFiles("tiny", shares::add) { file ->
            asked += file
            Files.newInputStream(source.resolve(file))
        }
        val files = listOf("correction.safetensors", "golden.safetensors", "unet.pte").map { "executorch/$it" }
        assertEquals(listOf("manifest.json") + files, asked)
        assertTrue(shares.size == 3 && shares == shares.sorted() && shares.last() == 1.0, "$shares")
        assertEquals("missing-file", assertFailsWith<BundleError> { store.open("tiny") }.name)
        assertEquals("golden — tiny", phone.open("tiny").name)
    }

    @Test
    fun noPathOutOfTheBundleIsAskedFor() {
        val edits = Corpus.entries("bundles").single { it["name"].string == "path-through-the-parent" }["edits"]
        val source = Corpus.bundle(edits.items!!)
        val error = assertFailsWith<BundleError> {
            store.installFiles("tiny") { if (it == "manifest.json") Files.newInputStream(source.resolve(it)) else fail(it) }
        }
        assertEquals("bad-path", error.name)
        assertEquals("no-manifest", assertFailsWith<BundleError> { store.installFiles("tiny") { null } }.name)
        assertEquals(emptyList(), there())
    }

    @Test
    fun aRefusedBundleLeavesTheEarlierOne() {
        store.installFolder("tiny", Corpus.bundle())
        val bad = Corpus.bundle()
        Files.write(bad.resolve("executorch/unet.pte"), ByteArray(64))
        assertEquals("changed-file", assertFailsWith<BundleError> { store.installFolder("tiny", bad) }.name)
        assertEquals(listOf("tiny"), there())
        assertEquals("golden — tiny", store.open("tiny").name)
    }

    @Test
    fun aBrokenStreamLeavesTheEarlierOne() {
        store.installFolder("tiny", Corpus.bundle())
        val archive = zipped(Corpus.bundle())
        for (length in listOf(0, 10, archive.size / 3, archive.size / 2)) {
            val broken = object : InputStream() {
                val inner = ByteArrayInputStream(archive, 0, length)
                override fun read(): Int = inner.read().also { if (it < 0) throw IOException("connection lost") }
            }
            assertFailsWith<IOException> { store.installArchive("tiny", broken) }
            assertFailsWith<Exception> { store.installArchive("tiny", ByteArrayInputStream(archive, 0, length)) }
            assertEquals(listOf("tiny"), there())
            assertEquals("golden — tiny", store.open("tiny").name)
        }
    }

    @Test
    fun aCancelledInstallationLeavesNothing() {
        assertFailsWith<Cancelled> {
            store.install("tiny") { incoming ->
                incoming.add("manifest.json", ByteArrayInputStream("{}".toByteArray()))
                throw Cancelled()
            }
        }
        assertEquals(emptyList(), there())
    }

    @Test
    fun whatAKilledInstallationLeftIsRepairedAtTheNextStart() {
        store.installFolder("replaced", Corpus.bundle())
        store.installFolder("moved", Corpus.bundle())
        Corpus.copy(root.resolve("replaced"), root.resolve(".replaced.old")) // killed before it was deleted
        Files.move(root.resolve("moved"), root.resolve(".moved.old")) // killed between the two renames
        Files.createDirectories(root.resolve(".moved.partial/executorch"))
        val again = BundleStore(root)
        assertEquals(listOf("moved", "replaced"), there())
        for (name in again.names()) assertEquals("golden — tiny", again.open(name).name)
    }

    @Test
    fun archivesWriteNowhereElse() {
        for (path in listOf("../evil", "/evil", "a/../../evil", "..\\evil", "a//b")) {
            val bytes = ByteArrayOutputStream()
            ZipOutputStream(bytes).use {
                it.putNextEntry(ZipEntry(path))
                it.write(1)
            }
            val archive = ByteArrayInputStream(bytes.toByteArray())
            assertEquals("bad-path", assertFailsWith<BundleError> { store.installArchive("evil", archive) }.name)
        }
        assertEquals(emptyList(), there())
        assertTrue(Files.notExists(root.resolveSibling("evil")))
    }

    @Test
    fun namesOfOtherFoldersAreRefused() {
        for (name in listOf("", ".", "..", "../x", "a/b", ".hidden")) {
            assertFailsWith<Exception> { store.installFolder(name, Corpus.bundle()) }
            assertFailsWith<Exception> { store.remove(name) }
        }
        assertEquals(emptyList(), there())
        assertTrue(Files.exists(root))
    }

    @Test
    fun deletingABundleLeavesWhatItsLinksLeadTo() {
        val kept = Files.createTempDirectory("kept").resolve("file")
        Files.write(kept, ByteArray(3))
        store.installFolder("tiny", Corpus.bundle())
        Files.createSymbolicLink(root.resolve("tiny/link"), kept.parent)
        store.remove("tiny")
        assertTrue(Files.exists(kept))
    }
}
