extension Manifest {
    /// Sizes within their limits, before anything is allocated by them.
    func checkRanges() throws {
        for (what, size) in [("sample", sample), ("image", image)] {
            try require("\(what).channels", size.channels, atMost: Self.maxSide)
            try require("\(what).height", size.height, atMost: Self.maxSide)
            try require("\(what).width", size.width, atMost: Self.maxSide)
        }
        if let latents {
            try require("latents.channels", latents.channels, atMost: Self.maxSize)
            try require("latents.image_channels", latents.imageChannels, atMost: Self.maxSize)
            try require("latents.factor", latents.factor, atMost: Self.maxSize)
        }
        if let text {
            try require("text.max_length", text.maxLength, atMost: Self.maxSize)
            try require("text.width", text.width, atMost: Self.maxSize)
            try require("text.vocabulary", text.vocabulary, atMost: Self.maxSize)
        }
        try require("steps", steps, atMost: SamplingPlan.maxSteps)
        if let latents, !(latents.scalingFactor > 0) {
            throw FormatError("out-of-range", "latents.scaling_factor must be > 0, got \(latents.scalingFactor).")
        }
    }

    /// What is named as a file is in the list of files.
    func checkReferences() throws {
        for part in parts.values {
            for component in part.components.values where artifactFiles(component.artifact).isEmpty {
                throw unlisted(component.artifact)
            }
            for file in [part.correction, part.golden] { try requireListed(file) }
        }
        let shared = [constants, text?.prompts].compactMap(\.self) + (text?.tokenizer ?? [])
        for file in shared { try requireListed(file) }
    }

    private func require(_ what: String, _ value: Int, atMost limit: Int) throws {
        guard (1...limit).contains(value) else {
            throw FormatError("out-of-range", "\(what) must be 1 to \(limit), got \(value).")
        }
    }

    private func requireListed(_ file: String) throws {
        guard files[Key(file)] != nil else { throw unlisted(file) }
    }

    private func unlisted(_ file: String) -> FormatError {
        FormatError("unlisted-file", "the manifest needs \(file), which is not in its list of files.")
    }
}
