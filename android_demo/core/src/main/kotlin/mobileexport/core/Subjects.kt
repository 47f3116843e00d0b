package mobileexport.core

/**
 * What the samples of a bundle can show: its classes, the prompts that it has embeddings of, or nothing in particular.
 *
 * [names]: of each, for people; one "" where there is nothing to choose. Throws UsageError for a bundle whose prompts
 * only its own text encoder understands: apps have no tokenizer.
 */
class Subjects(private val bundle: Bundle) {
    private val manifest = bundle.manifest
    private val constants = manifest.constants?.let(bundle::tensors).orEmpty()
    private val prompts = manifest.text?.prompts?.let { Conditioning.of(bundle.tensors(it)) }

    val names: List<String> = when {
        manifest.text != null -> manifest.text.subjects
        manifest.model.classes.isNotEmpty() -> manifest.model.classes
        else -> listOf("")
    }

    init {
        if (manifest.text != null && prompts == null) {
            throw UsageError("${bundle.name} has no prompts of its own: export it again with --prompts.")
        }
        val odd = prompts?.given?.filterValues { it.shape[0] != names.size }.orEmpty()
        if (odd.isNotEmpty()) throw UsageError("${bundle.name} has ${names.size} prompts, but not as many ${odd.keys}.")
    }

    /** Of the subject with number [index] in [names]. */
    fun conditioning(index: Int): Conditioning {
        if (index !in names.indices) throw UsageError("${bundle.name} has ${names.size} subjects, there is no $index.")
        val chosen = when {
            prompts != null -> Conditioning(prompts.given.mapValues { (_, rows) -> row(rows, index) }, prompts.other)
            manifest.model.classes.isNotEmpty() -> labels(index.toLong())
            else -> Conditioning()
        }
        return Conditioning(chosen.given + constants, chosen.other)
    }

    private fun labels(label: Long): Conditioning {
        fun only(value: Long) = mapOf("class_labels" to WholeTensor(listOf(1), longArrayOf(value)))
        if (manifest.guidance == 1.0) return Conditioning(only(label))
        val other = manifest.model.nullLabel
            ?: throw UsageError("guidance ${manifest.guidance} needs a null class, which ${bundle.name} does not have.")
        return Conditioning(only(label), only(other))
    }

    private fun row(rows: Input, index: Int): Input =
        (rows as? Tensor)?.row(index) ?: throw UsageError("the prompts of ${bundle.name} are no embeddings.")
}
