#if canImport(CoreML)
    import Foundation
    import Observation
    import SamplerCore

    /// One opened bundle on the screen: what it can draw, what is being drawn, what was found.
    ///
    /// The work runs in a task of its own. Its networks live in that task's scopes alone, so that the end of the task,
    /// however it comes, is the end of their memory.
    @MainActor @Observable
    final class Session {
        /// What is going on, for the progress bar.
        struct Progress: Equatable {
            var text: String
            var share: Double?
        }

        let name: String
        private(set) var bundle: Bundle?
        private(set) var subjects: Subjects?
        private(set) var progress: Progress?
        private(set) var pixels: Pixels?
        private(set) var secondsPerStep: [Double] = []
        private(set) var peakMemory: Int?
        private(set) var verification: Verification?
        var failure: String?

        var subject = ""
        var seed: UInt64 = 0
        var corrected = true
        var units = ComputeUnits.all

        private var task: Task<Void, Never>?

        init(name: String) { self.name = name }

        var isBusy: Bool { task != nil }

        /// Checks all of the bundle's files before anything of it is shown.
        func open() {
            start("Checking the files") { [name] tell in
                let bundle = try Library.store.get().open(name, target: Library.target) { share in
                    tell(.progress(Progress(text: "Checking the files", share: share)))
                }
                let subjects = try Subjects(bundle)
                tell(.opened(bundle, subjects))
            }
        }

        func draw() {
            guard let bundle else { return }
            let request = Sampling.Request(subject: subject, seed: seed, corrected: corrected)
            let latents = bundle.manifest.latents != nil
            work(bundle) { sampling, tell in
                let image = try sampling.image(request) { event in
                    if case .step(let step, _) = event {
                        tell(.preview(try Pixels(preview: step.y, latents: latents)))
                    }
                    tell(.event(event))
                }
                tell(.preview(try Pixels(image: image)))
            }
        }

        func verify() {
            guard let bundle else { return }
            work(bundle) { sampling, tell in
                tell(.verified(try sampling.verify { tell(.event($0)) }))
            }
        }

        /// The work stops before its next step; what the system is at, such as preparing a model, ends first.
        func cancel() {
            guard let task else { return }
            task.cancel()
            progress = Progress(text: "Stopping")
        }

        private enum News: Sendable {
            case progress(Progress)
            case opened(Bundle, Subjects)
            case event(Sampling.Event)
            case preview(Pixels)
            case verified(Verification)
        }

        private typealias Tell = @Sendable (News) -> Void

        private func work(_ bundle: Bundle, _ action: @escaping @Sendable (Sampling, Tell) throws -> Void) {
            (pixels, verification, peakMemory, secondsPerStep) = (nil, nil, nil, [])
            let units = units
            start("Loading") { tell in
                let part = try bundle.part(Library.target)
                let runtime = try await CoreMLRuntime(bundle, part: part, units: units) { done, all in
                    let text = "The first load prepares the model, once (\(done + 1) of \(all))"
                    tell(.progress(Progress(text: text, share: Double(done) / Double(all))))
                }
                try action(Sampling(bundle, target: Library.target) { try runtime.load($0, $1) }, tell)
            }
        }

        private func start(_ text: String, _ action: @escaping @Sendable (Tell) async throws -> Void) {
            guard task == nil else { return }
            progress = Progress(text: text)
            let (news, sink) = AsyncStream.makeStream(of: News.self)
            task = Task {
                let work = Task.detached(priority: .userInitiated) {
                    defer { sink.finish() }
                    try await action { sink.yield($0) }
                }
                await withTaskCancellationHandler {
                    for await each in news { receive(each) }
                    do {
                        try await work.value
                    } catch is CancellationError {
                    } catch {
                        failure = explanation(of: error)
                    }
                } onCancel: {
                    work.cancel()
                }
                progress = nil
                task = nil
            }
        }

        private func receive(_ news: News) {
            switch news {
            case .progress(let progress): self.progress = progress
            case .opened(let bundle, let subjects):
                (self.bundle, self.subjects) = (bundle, subjects)
                subject = subjects.names.first ?? ""
            case .event(let event): show(event)
            case .preview(let pixels): self.pixels = pixels
            case .verified(let verification): self.verification = verification
            }
            peakMemory = [peakMemory, MemoryMeter.footprint()].compactMap(\.self).max()
        }

        private func show(_ event: Sampling.Event) {
            switch event {
            case .loading(let component): progress = Progress(text: "Loading \(component)")
            case .step(let step, let seconds):
                secondsPerStep.append(seconds)
                progress = Progress(
                    text: "Step \(step.index + 1) of \(step.steps)", share: Double(step.index + 1) / Double(step.steps))
            case .decoding: progress = Progress(text: "Decoding the picture")
            }
        }
    }
#endif
