package mobileexport.core

/**
 * One image of a bundle on this device. A network is in memory only while it runs: each is loaded in a scope of its
 * own, and every way out of that scope (the end, an error, a cancellation) frees it.
 */
class Sampling(val bundle: Bundle, private val target: String, private val loader: NetworkLoader) {
    /** What is shown while it goes on. */
    sealed interface Event {
        class Loading(val component: String) : Event

        /** [nanoseconds]: how long the step took. */
        class Stepped(val step: DeviceLoop.Step, val nanoseconds: Long) : Event

        data object Decoding : Event
    }

    /**
     * What to draw: the subject's number in [Subjects.names], or a [prompt] where the bundle takes prompts, and the
     * noise. Without [corrected] the correction is left out.
     */
    class Request(
        val subject: Int = 0,
        val seed: Long = 0,
        val sample: Long = 0,
        val corrected: Boolean = true,
        val prompt: String = "",
    )

    private val file = bundle.correctionFile(target)
    val subjects = Subjects(bundle)

    /** How many times the network is asked for a sample, which may be more than the bundle's `steps`. */
    val steps: Int get() = file.plan.steps

    /** (1, C, H, W), an image in [-1, 1]. Throws Cancelled. */
    fun image(
        request: Request, cancellation: Cancellation = Cancellation(), onEvent: (Event) -> Unit = {},
    ): Tensor {
        val sample = sample(request, cancellation, onEvent)
        val latents = bundle.manifest.latents ?: return sample
        cancellation.check()
        return load("vae_decoder", onEvent).use { decoder ->
            onEvent(Event.Decoding)
            decoder.run(mapOf("latents" to latents.toDecoder(sample))).clipped(1f)
        }
    }

    private fun sample(request: Request, cancellation: Cancellation, onEvent: (Event) -> Unit): Tensor {
        val noise = Noise(request.seed)
        val conditioning =
            if (subjects.takesPrompts) prompt(request.prompt, onEvent) else subjects.conditioning(request.subject)
        cancellation.check()
        val shape = bundle.manifest.sample.shape
        val loop = DeviceLoop(file.plan, if (request.corrected) file.correction else null)
        return load("unet", onEvent).use { network ->
            var begun = System.nanoTime()
            loop.sample(
                noise.initial(shape, request.sample),
                conditioning.denoiser(network, bundle.manifest.guidance),
                { step -> noise.step(shape, step, request.sample) },
                cancellation,
            ) { step ->
                onEvent(Event.Stepped(step, System.nanoTime() - begun))
                begun = System.nanoTime()
            }
        }
    }

    private fun prompt(prompt: String, onEvent: (Event) -> Unit): Conditioning {
        val text = checkNotNull(bundle.manifest.text)
        val files = TokenizerFiles(text.tokenizer.map(bundle.folder::resolve))
        val tokenizer = files.tokenizer(text.maxLength.toInt(), text.vocabulary.toInt())
        val told = bundle.component(target, "unet").signature.inputs.any { it.name == Subjects.GUIDANCE }
        return load("text_encoder", onEvent).use { encoder ->
            fun embedding(words: String): Tensor {
                val ids = tokenizer.ids(words).map { it.toLong() }.toLongArray()
                return encoder.run(mapOf("input_ids" to WholeTensor(listOf(1, ids.size), ids)))
            }
            val guided = bundle.manifest.guidance > 1 && !told
            subjects.conditioning(embedding(prompt), if (guided) embedding(text.negativePrompt) else null)
        }
    }

    /** Replays the golden record of the part: see [Verification]. The network is in memory only until then. */
    fun verify(cancellation: Cancellation = Cancellation(), onEvent: (Event) -> Unit = {}): Verification {
        val golden = Golden.read(bundle, target, file.plan.steps)
        return load("unet", onEvent).use { network ->
            val denoiser = golden.conditioning.denoiser(network, bundle.manifest.guidance)
            Verification.of(file, golden, denoiser, cancellation, onEvent)
        }
    }

    private fun load(component: String, onEvent: (Event) -> Unit): Network {
        onEvent(Event.Loading(component))
        return loader.load(bundle.artifact(target, component), bundle.component(target, component).signature)
    }
}
