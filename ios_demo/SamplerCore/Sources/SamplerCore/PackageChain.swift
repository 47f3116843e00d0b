/// Packages that are run in their order as if they were one: each takes its inputs by name from the inputs of the whole
/// and the outputs of those before it.
public struct PackageChain<Value> {
    public struct Link {
        let inputs: [String]
        let run: ([String: Value]) throws -> [String: Value]

        public init(inputs: [String], run: @escaping ([String: Value]) throws -> [String: Value]) {
            self.inputs = inputs
            self.run = run
        }
    }

    private let links: [Link]

    public init(_ links: [Link]) { self.links = links }

    /// All values by name: those given, and what every package put out. Stops between two packages when its task is
    /// cancelled.
    public func run(_ given: [String: Value]) throws -> [String: Value] {
        var values = given
        for (index, link) in links.enumerated() {
            try Task.checkCancellation()
            var inputs: [String: Value] = [:]
            for name in link.inputs {
                guard let value = values[name] else {
                    throw UsageError("package \(index + 1) takes \(name), which nothing before it gives.")
                }
                inputs[name] = value
            }
            values.merge(try link.run(inputs)) { _, new in new }
        }
        return values
    }

    /// The names that must be given to the whole.
    public var inputs: Set<String> { Set(links.flatMap(\.inputs)) }
}
