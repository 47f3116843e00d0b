package mobileexport.core

/** manifest.json, checked before anything else of a bundle is read: docs/bundle-format.md, in its order. */
internal object ManifestReader {
    const val MAX_BYTES = 1L shl 20
    private const val FORMAT = "mobile-export-bundle"
    private const val VERSION = "3.1"
    private const val MAX_FILES = 1024
    private const val MAX_DEPTH = 32
    private const val MAX_WHOLE = 40
    private val COMPONENTS = listOf("unet", "text_encoder", "vae_decoder", "vae_encoder")
    private val TYPES = listOf("float32", "int32", "int64")

    /** Throws BundleError. */
    fun read(bytes: ByteArray): Manifest {
        if (bytes.size > MAX_BYTES) refuse("manifest-too-large", "it has more than $MAX_BYTES bytes.")
        val content = try {
            parseJson(decodeUtf8(bytes), MAX_DEPTH, MAX_WHOLE)
        } catch (error: FormatError) {
            throw BundleError(error.name, "manifest.json is not readable: ${error.message}")
        }
        val members = content.members
        if (members?.get("format")?.string != FORMAT) refuse("other-format", "its format is not '$FORMAT'.")
        val version = members["format_version"]?.string
        val major = majorVersion(version) ?: refuse("bad-version", "format_version is '$version', not like $VERSION.")
        if (major != majorVersion(VERSION)) {
            refuse("unknown-major-version", "this app reads version $VERSION, the bundle has $version.")
        }
        val files = members["files"]?.members
        val parts = members["parts"]?.members
        if (files.isNullOrEmpty() || parts.isNullOrEmpty()) {
            refuse("bad-manifest", "files and parts must be objects with at least one entry.")
        }
        if (files.size > MAX_FILES) refuse("too-many-files", "a bundle has at most $MAX_FILES files.")
        val manifest = manifest(version!!, Fields(content, "manifest"), files, parts)
        checkReferences(manifest)
        return manifest
    }

    /** First every type, then every range. */
    private fun manifest(version: String, top: Fields, files: Map<String, Json>, parts: Map<String, Json>): Manifest {
        val (name, precision, sampler) = listOf("name", "precision", "sampler").map(top::string)
        val steps = top.whole("steps")
        val guidance = top.number("guidance")
        val model = model(top.fields("model"))
        val (sample, image) = listOf("sample", "image").map { sizes(top.fields(it), "channels", "height", "width") }
        val calibration = calibration(top.fields("calibration"))
        top.members("versions")
        val text = top.optional("text", top::fields)
        val latents = top.optional("latents", top::fields)
        val words = text?.let(::text)
        val latentSizes = latents?.let { sizes(it, "channels", "image_channels", "factor") }
        val factors = latents?.let { it.string("kind") to listOf("scaling_factor", "shift_factor").map(it::number) }
        val constants = top.optional("constants", top::string)
        val found = parts.toSortedMap(CodePointOrder).mapValues { (key, part) -> part(Fields(part, "parts.$key")) }

        inRange("sample", sample, Manifest.MAX_SIDE)
        inRange("image", image, Manifest.MAX_SIDE)
        latentSizes?.let { inRange("latents", it, Int.MAX_VALUE) }
        words?.let { inRange("text", listOf(it.maxLength, it.width, it.vocabulary), Int.MAX_VALUE) }
        inRange("steps", listOf(steps), SamplingPlan.MAX_STEPS)
        if (factors != null && factors.second[0] <= 0) {
            refuse("out-of-range", "the scaling factor of latents must be above 0.")
        }
        return Manifest(
            version, name, precision, sampler, steps.toInt(), guidance, model, size(sample), size(image),
            latentSizes?.let { latents(it, factors!!) }, words, constants, calibration, found, files,
        )
    }

    private fun model(model: Fields): Manifest.Model {
        for (key in listOf("source", "pipeline", "digest")) model.string(key)
        model.members("scheduler_config")
        return Manifest.Model(
            model.string("name"), model.string("kind"), model.string("scheduler"), model.whole("parameters"),
            model.strings("classes"), model.optional("null_label", model::whole),
        )
    }

    private fun calibration(calibration: Fields): String {
        for (key in listOf("samples", "seed")) calibration.whole(key)
        calibration.string("stream")
        return calibration.string("method")
    }

    private fun text(text: Fields) = Manifest.Text(
        text.whole("max_length"), text.whole("width"), text.whole("vocabulary"),
        text.strings("tokenizer"), text.optional("prompts", text::string), text.strings("subjects"),
        text.string("negative_prompt"),
    )

    private fun latents(sizes: List<Long>, factors: Pair<String, List<Double>>) = Latents(
        factors.first, sizes[0].toInt(), sizes[1].toInt(), sizes[2].toInt(), factors.second[0], factors.second[1],
    )

    private fun part(part: Fields): Manifest.Part {
        val components = part.members("components")
        if ("unet" !in components) part.refuse("components", "one that has a unet")
        val found = components.mapValues { (name, value) ->
            if (name !in COMPONENTS) part.refuse("components.$name", "one of $COMPONENTS")
            component(Fields(value, "components.$name"))
        }
        return Manifest.Part(found, part.string("correction"), part.string("golden"), part.bools("kept_steps"))
    }

    private fun component(component: Fields): Manifest.Component {
        for (key in listOf("recipe", "refitted_layers")) component.members(key)
        for (key in listOf("ideal_bytes", "weight_bits_asked")) component.whole(key)
        component.number("weight_bits_achieved")
        component.items("float_layers")
        val parity = component.fields("conversion_parity")
        parity.numbers("limits")
        for (key in parity.members("limits").keys) parity.optional(key, parity::number)
        val description = component.fields("description")
        for (key in listOf("operations", "undelegated")) description.members(key)
        description.numbers("size_parts")
        description.items("notes")
        return Manifest.Component(
            component.string("artifact"), signature(component.fields("signature")), component.string("kind"),
            component.whole("parameters"), component.string("precision"), component.number("stored_bits"),
            description.whole("total_bytes"),
        )
    }

    private fun signature(signature: Fields): Signature {
        val inputs = signature.items("inputs").map { port(Fields(it, "signature.inputs")) }
        return Signature(inputs, port(signature.fields("output")))
    }

    private fun port(port: Fields): Port {
        val shape = port.items("shape").map { size ->
            size.whole?.takeIf { it in 1..Int.MAX_VALUE }?.toInt() ?: port.refuse("shape", "sizes 1 .. 2^31 - 1")
        }
        val type = port.string("type")
        if (type !in TYPES) port.refuse("type", "one of $TYPES")
        return Port(port.string("name"), shape, type)
    }

    private fun sizes(fields: Fields, vararg keys: String): List<Long> = keys.map(fields::whole)

    private fun size(sizes: List<Long>) = Manifest.Size(sizes[0].toInt(), sizes[1].toInt(), sizes[2].toInt())

    private fun inRange(what: String, sizes: List<Long>, limit: Int) {
        sizes.find { it !in 1..limit }?.let { refuse("out-of-range", "$what must be 1 to $limit, got $it.") }
    }

    /** What is named as a file is in the list of files. */
    private fun checkReferences(manifest: Manifest) {
        for (part in manifest.parts.values) {
            for (component in part.components.values) {
                if (manifest.artifactFiles(component.artifact).isEmpty()) unlisted(component.artifact)
            }
            for (file in listOf(part.correction, part.golden)) if (file !in manifest.files) unlisted(file)
        }
        val others = listOf(manifest.constants, manifest.text?.prompts) + manifest.text?.tokenizer.orEmpty()
        others.filterNotNull().find { it !in manifest.files }?.let(::unlisted)
    }

    private fun unlisted(file: String): Nothing = refuse("unlisted-file", "'$file' is not in the list of files.")

    private fun refuse(name: String, message: String): Nothing = throw BundleError(name, "manifest.json: $message")
}
