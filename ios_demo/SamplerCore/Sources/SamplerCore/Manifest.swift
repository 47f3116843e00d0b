import Foundation

/// manifest.json of a bundle: what must hold before anything else of it is read. docs/bundle-format.md has the keys.
public struct Manifest: Equatable, Sendable {
    public static let fileName = "manifest.json"
    public static let maxBytes = 1 << 20
    static let maxFiles = 1024
    static let maxSide = 4096
    static let maxSize = Int(Int32.max)

    /// Channels, height and width of samples or images.
    public struct Size: Equatable, Sendable {
        public let channels: Int
        public let height: Int
        public let width: Int

        public var shape: [Int] { [1, channels, height, width] }
    }

    public struct Model: Equatable, Sendable {
        public let name: String
        public let kind: String
        public let pipeline: String
        public let scheduler: String
        public let parameters: Int
        public let classes: [String]
        public let nullLabel: Int?
    }

    public struct Text: Equatable, Sendable {
        public let maxLength: Int
        public let width: Int
        public let vocabulary: Int
        public let negativePrompt: String
        public let tokenizer: [String]
        public let prompts: String?
        public let subjects: [String]
    }

    /// nil: not a number, or not a string; the check of the file then fails.
    public struct File: Equatable, Sendable {
        public let bytes: Int?
        public let sha256: String?
    }

    public struct Component: Equatable, Sendable {
        public let artifact: String
        public let signature: Signature
        public let kind: String
        public let parameters: Int
        public let precision: String
        public let totalBytes: Int
        public let plannedMemoryBytes: Int?
    }

    public struct Part: Equatable, Sendable {
        public let components: [String: Component]
        public let correction: String
        public let golden: String
        public let keptSteps: [Bool]
    }

    public let formatVersion: String
    public let name: String
    public let model: Model
    public let sample: Size
    public let image: Size
    public let latents: Latents?
    public let text: Text?
    public let constants: String?
    public let precision: String
    public let sampler: String
    public let steps: Int
    public let guidance: Double
    public let parts: [String: Part]
    public let files: [Key: File]
}

extension Manifest {
    /// The files of an artifact by their path in it: the file of this name, or all below the folder of this name.
    public func artifactFiles(_ artifact: String) -> [Key: File] {
        if let file = files[Key(artifact)] {
            return [Key(artifact.split(separator: "/").last.map(String.init) ?? ""): file]
        }
        let folder = Array("\(artifact)/".utf8)
        let inside = files.filter { $0.key.text.utf8.starts(with: folder) }
        return Dictionary(
            uniqueKeysWithValues: inside.map { path, file in
                (Key(String(decoding: Array(path.text.utf8.dropFirst(folder.count)), as: UTF8.self)), file)
            })
    }

    /// The digest that a correction is bound to. A file's is its sha256. A folder's is that of the sorted lines
    /// "<sha256>  <path in the folder>\n", without a Manifest.json at its root, whose identifiers are random.
    public func artifactSHA256(_ artifact: String) -> String {
        if let file = files[Key(artifact)] { return file.sha256 ?? "" }
        let bound = artifactFiles(artifact).filter { $0.key != "Manifest.json" }
        let lines = bound.map { Key("\($0.value.sha256 ?? "")  \($0.key)\n") }.sorted()
        return SamplerCore.sha256(Array(lines.map(\.text).joined().utf8))
    }

    /// All files, in the order of their paths.
    public var allFiles: [(path: Key, file: File)] {
        files.sorted { $0.key < $1.key }.map { (path: $0.key, file: $0.value) }
    }

    /// The files that one part needs: all but those in the folders of other parts.
    public func files(of target: String) -> [(path: Key, file: File)] {
        let others = parts.keys.filter { $0 != target }.map { Array("\($0)/".utf8) }
        let own = parts[target].map { [$0.correction, $0.golden] + $0.components.values.map(\.artifact) } ?? []
        return allFiles.filter { path, _ in
            !others.contains { path.text.utf8.starts(with: $0) }
                || own.contains { path == Key($0) || path.text.utf8.starts(with: Array("\($0)/".utf8)) }
        }
    }
}
