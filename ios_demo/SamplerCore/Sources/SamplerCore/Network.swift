/// An artifact in memory. It lets go of its memory when nobody holds it any more.
public protocol Network: AnyObject {
    /// Inputs by the names of the artifact's signature -> its output.
    func run(_ inputs: [String: Tensor]) throws -> Tensor
}

/// A UNet's network as a denoiser, with what it is told besides sample and timestep.
struct NetworkDenoiser: Denoiser {
    let network: any Network
    let conditioning: [String: Tensor]

    func predict(_ sample: Tensor, timestep: Float) throws -> Tensor {
        let own = ["sample": sample, "timestep": Tensor(shape: [1], values: [timestep])]
        return try network.run(own.merging(conditioning) { own, _ in own })
    }
}
