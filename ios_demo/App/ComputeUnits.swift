#if canImport(CoreML)
    import CoreML

    /// Where Core ML may run a network.
    enum ComputeUnits: String, CaseIterable, Identifiable, Sendable {
        case all = "All"
        case neuralEngine = "CPU and Neural Engine"
        case gpu = "CPU and GPU"
        case cpu = "CPU only"

        var id: String { rawValue }

        var setting: MLComputeUnits {
            switch self {
            case .all: .all
            case .neuralEngine: .cpuAndNeuralEngine
            case .gpu: .cpuAndGPU
            case .cpu: .cpuOnly
            }
        }
    }
#endif
