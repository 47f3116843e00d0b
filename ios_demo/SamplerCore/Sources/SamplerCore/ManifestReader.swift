import Foundation

extension Manifest {
    /// - Throws: `FormatError` with the name of the first check that fails, in the order of docs/bundle-format.md.
    public init(_ url: URL) throws {
        try self.init(bytes: readFile(url, atMost: Self.maxBytes, else: "manifest-too-large"))
    }

    public init(bytes: [UInt8]) throws {
        let top = Fields(try Self.parsed(bytes))
        formatVersion = try Self.checkedVersion(top)
        let entries = try top.object("files")
        let partEntries = try top.object("parts")
        guard !entries.isEmpty && !partEntries.isEmpty else { throw top.refused("files and parts must hold something") }
        guard entries.count <= Self.maxFiles else {
            throw FormatError("too-many-files", "a bundle has at most \(Self.maxFiles) files, got \(entries.count).")
        }
        name = try top.string("name")
        precision = try top.string("precision")
        sampler = try top.string("sampler")
        steps = try top.integer("steps")
        guidance = try top.number("guidance")
        model = try Model(top.fields("model"))
        sample = try Size(top.fields("sample"))
        image = try Size(top.fields("image"))
        try Self.checkCalibration(top)
        text = try top.optional("text") { try Text($0.fields("text")) }
        latents = try top.optional("latents") { try Latents($0.fields("latents")) }
        constants = try top.optional("constants") { try $0.string("constants") }
        files = entries.mapValues { File(bytes: $0["bytes"]?.integer, sha256: $0["sha256"]?.string) }
        var parts: [String: Part] = [:]
        for (name, value) in partEntries { parts[name.text] = try Part(Fields(value, path: "parts.\(name)")) }
        self.parts = parts
        try checkRanges()
        try checkReferences()
    }

    private static func parsed(_ bytes: [UInt8]) throws -> JSON {
        do {
            return try JSON.parse(bytes, maxDepth: 32, maxInteger: 40)
        } catch JSONError.notUTF8 {
            throw FormatError("not-utf8", "the manifest is not UTF-8.")
        } catch JSONError.notJSON(let reason) {
            throw FormatError("not-json", "the manifest is not JSON: \(reason).")
        } catch JSONError.duplicateKey(let key) {
            throw FormatError("duplicate-key", "the manifest names '\(key)' twice.")
        }
    }

    private static func checkedVersion(_ top: Fields) throws -> String {
        guard top.content["format"]?.string == "mobile-export-bundle" else {
            throw FormatError("other-format", "it is not the manifest of a bundle.")
        }
        let text = top.content["format_version"]?.string ?? ""
        guard let version = FormatVersion(text) else {
            throw FormatError("bad-version", "format_version must look like 3.1, got '\(text)'.")
        }
        guard version.major == 3 else {
            throw FormatError("unknown-major-version", "this reader knows version 3, the bundle has \(text).")
        }
        return text
    }

    private static func checkCalibration(_ top: Fields) throws {
        let calibration = try top.fields("calibration")
        _ = try (calibration.string("method"), calibration.integer("samples"))
        _ = try (calibration.integer("seed"), calibration.string("stream"))
        _ = try top.object("versions")
    }
}

extension Manifest.Size {
    fileprivate init(_ fields: Fields) throws {
        channels = try fields.integer("channels")
        height = try fields.integer("height")
        width = try fields.integer("width")
    }
}

extension Manifest.Model {
    fileprivate init(_ fields: Fields) throws {
        name = try fields.string("name")
        kind = try fields.string("kind")
        pipeline = try fields.string("pipeline")
        scheduler = try fields.string("scheduler")
        parameters = try fields.integer("parameters")
        classes = try fields.strings("classes")
        nullLabel = try fields.optional("null_label") { try $0.integer("null_label") }
        _ = try (fields.string("source"), fields.string("digest"), fields.object("scheduler_config"))
    }
}

extension Manifest.Text {
    fileprivate init(_ fields: Fields) throws {
        maxLength = try fields.integer("max_length")
        width = try fields.integer("width")
        vocabulary = try fields.integer("vocabulary")
        negativePrompt = try fields.string("negative_prompt")
        tokenizer = try fields.strings("tokenizer")
        prompts = try fields.optional("prompts") { try $0.string("prompts") }
        subjects = try fields.strings("subjects")
    }
}

extension Latents {
    init(_ fields: Fields) throws {
        kind = try fields.string("kind")
        channels = try fields.integer("channels")
        factor = try fields.integer("factor")
        imageChannels = try fields.integer("image_channels")
        scalingFactor = try fields.number("scaling_factor")
        shiftFactor = try fields.number("shift_factor")
    }
}

extension Manifest.Part {
    fileprivate init(_ fields: Fields) throws {
        correction = try fields.string("correction")
        golden = try fields.string("golden")
        keptSteps = try fields.items("kept_steps", "true and false") {
            if case .boolean(let kept) = $0 { kept } else { nil }
        }
        let entries = try fields.fields("components")
        guard entries.content["unet"] != nil else { throw fields.refused("\(entries.path) has no unet") }
        var components: [String: Manifest.Component] = [:]
        for name in entries.content.object?.keys.sorted() ?? [] {
            guard Manifest.componentNames.contains(name.text) else {
                throw fields.refused("\(entries.name(name)) is none of \(Manifest.componentNames)")
            }
            components[name.text] = try Manifest.Component(entries.fields(name))
        }
        self.components = components
    }
}

extension Manifest {
    public static let componentNames = ["unet", "text_encoder", "vae_decoder", "vae_encoder"]
}

extension Manifest.Component {
    fileprivate init(_ fields: Fields) throws {
        artifact = try fields.string("artifact")
        kind = try fields.string("kind")
        parameters = try fields.integer("parameters")
        precision = try fields.string("precision")
        signature = try Signature(fields.fields("signature"))
        _ = try (fields.object("recipe"), fields.object("refitted_layers"), fields.array("float_layers"))
        _ = try (fields.number("stored_bits"), fields.number("weight_bits_achieved"))
        _ = try (fields.integer("ideal_bytes"), fields.integer("weight_bits_asked"))
        let parity = try fields.fields("conversion_parity")
        for key in try parity.numbers("limits").keys where (parity.content[key] ?? .null) != .null {
            _ = try parity.number(key)
        }
        let description = try fields.fields("description")
        totalBytes = try description.integer("total_bytes")
        plannedMemoryBytes = try description.optional("planned_memory_bytes") { try $0.integer("planned_memory_bytes") }
        _ = try (description.numbers("size_parts"), description.object("operations"))
        _ = try (description.object("undelegated"), description.array("notes"))
    }
}

extension Signature {
    fileprivate init(_ fields: Fields) throws {
        inputs = try fields.array("inputs").map { try Port(Fields($0, path: "\(fields.path).inputs")) }
        output = try Port(fields.fields("output"))
    }
}

extension Signature.Port {
    fileprivate init(_ fields: Fields) throws {
        name = try fields.string("name")
        shape = try fields.items("shape", "sizes", \.integer)
        type = try fields.string("type")
        guard Signature.types.contains(type) else {
            throw fields.refused("\(fields.name("type")) must be one of \(Signature.types), got '\(type)'")
        }
        guard shape.allSatisfy({ (1...Manifest.maxSize).contains($0) }) else {
            throw fields.refused("\(fields.name("shape")) must hold sizes of 1 to \(Manifest.maxSize), got \(shape)")
        }
    }
}
