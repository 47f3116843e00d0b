package mobileexport.core

/**
 * What the samples of a bundle can show: its classes, the prompts that it has embeddings of, or nothing in particular.
 *
 * [names]: of each, for people; one "" where there is nothing to choose, none where any prompt can be given
 * ([takesPrompts]), which the bundle's own text encoder understands.
 */
class Subjects(private val bundle: Bundle) {
    private val manifest = bundle.manifest
    private val constants = manifest.constants?.let(bundle::tensors).orEmpty()
    private val prompts = manifest.text?.prompts?.let { Conditioning.of(bundle.tensors(it)) }

    val takesPrompts: Boolean = manifest.text != null && manifest.text.prompts == null

    val names: List<String> = when {
        takesPrompts -> emptyList()
        manifest.text != null -> manifest.text.subjects
        manifest.model.classes.isNotEmpty() -> manifest.model.classes
        else -> listOf("")
    }

    init {
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

    /** Of embeddings (1, S, D); [negative]: that of guidance's other branch, null without guidance. */
    internal fun conditioning(embedding: Tensor, negative: Tensor?) = Conditioning(
        constants + (EMBEDDING to embedding), negative?.let { mapOf(EMBEDDING to it) }.orEmpty(),
    )

    private fun labels(label: Long): Conditioning {
        fun only(value: Long) = mapOf("class_labels" to WholeTensor(listOf(1), longArrayOf(value)))
        if (manifest.guidance == 1.0) return Conditioning(only(label))
        val other = manifest.model.nullLabel
            ?: throw UsageError("guidance ${manifest.guidance} needs a null class, which ${bundle.name} does not have.")
        return Conditioning(only(label), only(other))
    }

    private fun row(rows: Input, index: Int): Input =
        (rows as? Tensor)?.row(index) ?: throw UsageError("the prompts of ${bundle.name} are no embeddings.")

    companion object {
        private const val EMBEDDING = "encoder_hidden_states"

        /** The input of UNets that are told the guidance. */
        internal const val GUIDANCE = "timestep_cond"
    }
}
