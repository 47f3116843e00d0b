package mobileexport.host

import mobileexport.core.Bundle
import mobileexport.core.Sampling
import mobileexport.core.UsageError
import mobileexport.core.explanation
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import kotlin.system.exitProcess

private const val TARGET = "executorch"
private const val USAGE = """Draws images of a bundle as the Android app does, on this machine:

  --library FILE --bundle FOLDER (--verify | -o FILE [--seed S] [--count N] [--prompt TEXT] [--uncorrected])

-o gets N images (C, H, W) of seed S one after the other, little-endian float32: of the prompt where the bundle takes
prompts, else of its subjects in turn.
--verify replays the golden record and prints the report."""

fun main(arguments: Array<String>) {
    try {
        HostMain(Options(arguments.toList())).run()
    } catch (error: UsageError) {
        System.err.println("${error.message}\n\n$USAGE")
        exitProcess(2)
    } catch (error: Exception) {
        System.err.println("${explanation(error)}\n(${error.message})")
        exitProcess(1)
    }
}

private class Options(arguments: List<String>) {
    private val flags = arguments.filter { it in FLAGS }.toSet()
    private val values = arguments.filter { it !in FLAGS }.chunked(2).associate { pair ->
        if (pair.size != 2 || pair[0] !in NAMES) throw UsageError("'${pair[0]}' is no option with a value.")
        pair[0] to pair[1]
    }

    val verify get() = "--verify" in flags
    val uncorrected get() = "--uncorrected" in flags
    val library: Path get() = Paths.get(required("--library"))
    val bundle: Path get() = Paths.get(required("--bundle"))
    val output: Path get() = Paths.get(required("-o"))
    val seed get() = number("--seed", 0)
    val count get() = number("--count", 1)
    val prompt get() = values["--prompt"] ?: ""

    private fun required(name: String) = values[name] ?: throw UsageError("$name is missing.")

    private fun number(name: String, otherwise: Long) = values[name]?.let {
        it.toLongOrNull() ?: throw UsageError("$name must be a whole number, got '$it'.")
    } ?: otherwise

    private companion object {
        val FLAGS = setOf("--verify", "--uncorrected")
        val NAMES = setOf("--library", "--bundle", "-o", "--seed", "--count", "--prompt")
    }
}

private class HostMain(private val options: Options) {
    private val bundle = Bundle.open(options.bundle, setOf(TARGET))
    private val sampling = Sampling(bundle, TARGET, HostNetwork.loader(options.library))

    fun run() = if (options.verify) verify() else draw()

    private fun verify() {
        val found = sampling.verify()
        print(found.report(listOf("bundle: ${bundle.name}", "runtime: ExecuTorch on this machine, through JNI")))
        if (!found.passed) exitProcess(1)
    }

    private fun draw() = Files.newOutputStream(options.output).use { output ->
        for (k in 0 until options.count) {
            val subject = (k % maxOf(1, sampling.subjects.names.size)).toInt()
            val request = Sampling.Request(subject, options.seed, k, !options.uncorrected, options.prompt)
            val image = sampling.image(request)
            val bytes = ByteBuffer.allocate(4 * image.values.size).order(ByteOrder.LITTLE_ENDIAN)
            image.values.forEach(bytes::putFloat)
            output.write(bytes.array())
        }
    }
}
