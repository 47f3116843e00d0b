/// What an artifact takes, in the order of its inputs, and what it gives. The first axis of each is a batch of 1.
public struct Signature: Equatable, Sendable {
    public struct Port: Equatable, Sendable {
        public let name: String
        public let shape: [Int]
        public let type: String

        public init(name: String, shape: [Int], type: String) {
            self.name = name
            self.shape = shape
            self.type = type
        }
    }

    public static let types = ["float32", "int32", "int64"]

    public let inputs: [Port]
    public let output: Port

    public init(inputs: [Port], output: Port) {
        self.inputs = inputs
        self.output = output
    }

    /// Inputs by name, checked against the signature: each with the shape of its port and none more.
    public func check(_ given: [String: Tensor], of artifact: String) throws {
        let names = inputs.map(\.name)
        guard Set(given.keys) == Set(names) else {
            throw UsageError("\(artifact) takes \(names), got \(given.keys.sorted()).")
        }
        for port in inputs where given[port.name]?.shape != port.shape {
            throw UsageError(
                "\(artifact) takes \(port.name) of shape \(port.shape), got \(given[port.name]?.shape ?? []).")
        }
    }
}
