import SamplerCore
import SwiftUI

typealias Bundle = SamplerCore.Bundle  // not Foundation's

/// Draws with quantized diffusion models: bundles of mobile-export, run by Core ML.
@main
struct DemoApp: App {
    @State private var library = Library()

    var body: some Scene {
        WindowGroup {
            LibraryView(library: library)
        }
    }
}
