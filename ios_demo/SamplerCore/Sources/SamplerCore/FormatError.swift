/// A file was refused. `name` is the same in every reader:
/// docs/correction-format.md and docs/bundle-format.md list them.
public struct FormatError: Error, Equatable, Sendable, CustomStringConvertible {
    public let name: String
    public let message: String

    public init(_ name: String, _ message: String) {
        self.name = name
        self.message = message
    }

    public var description: String { "\(name): \(message)" }
}

/// The caller asked for something that cannot be done.
public struct UsageError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
}

/// A NaN or an infinity appeared while sampling.
public struct NonFiniteError: Error, Equatable, Sendable, CustomStringConvertible {
    public let stage: String
    public let step: Int

    public init(stage: String, step: Int) {
        self.stage = stage
        self.step = step
    }

    public var description: String { "\(stage) holds NaN or infinity at step \(step)." }
}
