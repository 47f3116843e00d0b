/// A diffusion scheduler compiled to a table of numbers, one row per step; docs/correction-format.md says what each is.
public struct SamplingPlan: Equatable, Sendable {
    public static let maxSteps = 4096
    public static let maxHistory = 8
    public static let predictionTypes = ["epsilon", "sample", "v_prediction"]
    static let columns = ["a", "b", "clip", "input_scale", "p", "q", "sigma", "timestep"]

    public let timestep: [Float]
    public let inputScale: [Float]
    public let p: [Float]
    public let q: [Float]
    public let clip: [Float]
    public let a: [Float]
    public let b: [Float]
    /// `w[i][j]`: weight at step i of the converted output j steps ago.
    public let w: [[Float]]
    public let sigma: [Float]
    public let initSigma: Float
    public let predictionType: String
    public let scheduler: String

    public var steps: Int { timestep.count }
    public var history: Int { w[0].count }
    public var needsNoise: Bool { sigma.contains { $0 != 0 } }

    /// - Parameters:
    ///   - columns: each of `SamplingPlan.columns`, N numbers.
    ///   - w: N rows of H numbers.
    init(
        columns: [String: [Float]], w: [[Float]], initSigma: Float, predictionType: String, scheduler: String
    ) throws {
        func column(_ name: String) -> [Float] { columns[name] ?? [] }
        timestep = column("timestep")
        inputScale = column("input_scale")
        p = column("p")
        q = column("q")
        clip = column("clip")
        a = column("a")
        b = column("b")
        self.w = w
        sigma = column("sigma")
        self.initSigma = initSigma
        self.predictionType = predictionType
        self.scheduler = scheduler
        for name in Self.columns { try requireFinite("plan.\(name)", column(name)) }
        try requireFinite("plan.init_sigma", [initSigma])
        try requireFinite("plan.w", w.flatMap(\.self))
        try checkValues()
    }

    private func checkValues() throws {
        for i in timestep.indices.dropFirst() where timestep[i] > timestep[i - 1] {
            throw FormatError(
                "timesteps-not-decreasing", "step \(i) has timestep \(timestep[i]) after \(timestep[i - 1]).")
        }
        try require("timestep must be >= 0", timestep) { $0 >= 0 }
        try require("input_scale must be > 0", inputScale) { $0 > 0 }
        try require("clip must be >= 0", clip) { $0 >= 0 }
        try require("sigma must be >= 0", sigma) { $0 >= 0 }
        try require("init_sigma must be > 0", [initSigma]) { $0 > 0 }
        for (i, row) in w.enumerated() {
            try require("w of step \(i) must be 0 before the first step", row.dropFirst(i + 1)) { $0 == 0 }
        }
    }

    private func require(_ rule: String, _ values: some Collection<Float>, _ allowed: (Float) -> Bool) throws {
        if let bad = values.first(where: { !allowed($0) }) { throw FormatError("bad-plan", "\(rule), got \(bad).") }
    }
}

func requireFinite(_ name: String, _ values: [Float]) throws {
    if let index = values.firstIndex(where: { !$0.isFinite }) {
        throw FormatError("not-finite", "\(name) must be finite, got \(values[index]) at \(index).")
    }
}
