package mobileexport.app

import mobileexport.core.Manifest
import java.util.Locale

/** What is in a bundle, a line each. */
fun contents(manifest: Manifest): List<String> {
    val part = manifest.parts.getValue(Library.TARGET)
    val (image, sample) = listOf(manifest.image, manifest.sample).map { "${it.width} x ${it.height}" }
    return listOf(
        "Model: ${manifest.model.name} (${manifest.model.kind})",
        "Precision: ${manifest.precision}",
        "Sampler: ${manifest.sampler}, ${manifest.steps} steps, guidance ${manifest.guidance}",
        "Corrected: ${part.keptSteps.count { it }} of ${part.keptSteps.size} steps",
        if (manifest.latents == null) "Image: $image" else "Image: $image from $sample latents",
    ) + part.components.toSortedMap().map { (name, component) ->
        "$name: ${megabytes(component.totalBytes)}, ${component.precision}, ${component.parameters} parameters"
    }
}

fun megabytes(bytes: Long): String = "%.1f MB".format(Locale.ROOT, bytes / 1e6)
