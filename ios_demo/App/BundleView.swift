#if canImport(CoreML)
    import SamplerCore
    import SwiftUI
    import UIKit

    /// One bundle: what is in it, what to draw, the picture as it forms, and the check of this device.
    struct BundleView: View {
        @State private var session: Session

        init(name: String) { _session = State(initialValue: Session(name: name)) }

        var body: some View {
            Form {
                if let progress = session.progress { ProgressSection(progress: progress, cancel: session.cancel) }
                if let bundle = session.bundle, let subjects = session.subjects {
                    PictureSection(session: session)
                    RequestSection(session: session, subjects: subjects)
                    VerificationSection(session: session, bundle: bundle)
                    ContentsSection(bundle: bundle)
                }
            }
            .navigationTitle(session.bundle?.name ?? session.name)
            .failureAlert("This did not work", $session.failure)
            .onAppear { if session.bundle == nil { session.open() } }
            .onDisappear {
                session.cancel()
                UIApplication.shared.isIdleTimerDisabled = false
            }
            // A screen that goes dark suspends the app in the middle of a picture.
            .onChange(of: session.isBusy) { _, isBusy in UIApplication.shared.isIdleTimerDisabled = isBusy }
        }
    }

    private struct ProgressSection: View {
        let progress: Session.Progress
        let cancel: () -> Void

        var body: some View {
            Section {
                if let share = progress.share {
                    ProgressView(progress.text, value: share)
                } else {
                    ProgressView(progress.text)
                }
                Button("Cancel", role: .cancel, action: cancel)
            }
        }
    }

    private struct PictureSection: View {
        let session: Session

        var body: some View {
            Section {
                if let pixels = session.pixels, let picture = pixels.image {
                    Image(decorative: picture, scale: 1)
                        .interpolation(pixels.width < 128 ? .none : .high)
                        .resizable()
                        .scaledToFit()
                    ShareLink(
                        "Share the picture", item: Image(decorative: picture, scale: 1),
                        preview: SharePreview(session.name))
                }
                if let mean = session.secondsPerStep.mean {
                    LabeledContent("Time per step", value: seconds(mean))
                    LabeledContent("All steps", value: seconds(session.secondsPerStep.reduce(0, +)))
                }
                if let memory = session.peakMemory {
                    LabeledContent("Memory, largest seen", value: bytes(memory))
                }
            }
        }
    }

    private struct RequestSection: View {
        @Bindable var session: Session
        let subjects: Subjects

        var body: some View {
            Section("Draw") {
                if subjects.takesPrompts {
                    TextField("Prompt", text: $session.subject, axis: .vertical)
                } else if subjects.names.count > 1 {
                    Picker("Show", selection: $session.subject) {
                        ForEach(subjects.names, id: \.self) { Text($0).tag($0) }
                    }
                }
                HStack {
                    TextField("Seed", value: $session.seed, format: .number.grouping(.never))
                    Button("Another seed", systemImage: "dice") { session.seed = UInt64.random(in: 0..<1_000_000) }
                        .labelStyle(.iconOnly)
                }
                Toggle("Corrected", isOn: $session.corrected)
                Picker("Runs on", selection: $session.units) {
                    ForEach(ComputeUnits.allCases) { Text($0.rawValue).tag($0) }
                }
                Button("Draw") { session.draw() }
            }
            .disabled(session.isBusy)
        }
    }

    private struct VerificationSection: View {
        let session: Session
        let bundle: Bundle

        var body: some View {
            Section("Check this device") {
                Button("Verify") { session.verify() }.disabled(session.isBusy)
                if let found = session.verification {
                    LabeledContent("Sampler parity", value: found.samplerPassed ? "passed" : "FAILED")
                    LabeledContent("Conversion parity", value: found.conversionPassed ? "passed" : "FAILED")
                    ForEach(found.steps, id: \.index) { step in
                        LabeledContent(
                            "Step \(step.index + 1)",
                            value: step.equal ? "equal" : "\(decimal(step.psnr, places: 1)) dB")
                    }
                    ShareLink("Share the report", item: found.report(about: about))
                }
            }
        }

        private var about: [String] {
            let manifest = bundle.manifest
            let system = ProcessInfo.processInfo.operatingSystemVersionString
            return [
                "\(manifest.name), \(manifest.precision), \(manifest.sampler) in \(manifest.steps) steps",
                "\(DeviceModel.name), \(system), \(session.units.rawValue)",
                "Memory, largest seen: \(session.peakMemory.map(bytes) ?? "unknown")",
            ]
        }
    }

    private struct ContentsSection: View {
        let bundle: Bundle

        var body: some View {
            let manifest = bundle.manifest
            Section("In this bundle") {
                LabeledContent("Model", value: manifest.model.name)
                LabeledContent("Precision", value: manifest.precision)
                LabeledContent("Sampler", value: "\(manifest.sampler), \(manifest.steps) steps")
                LabeledContent("Guidance", value: manifest.guidance.formatted())
                LabeledContent("Image", value: "\(manifest.image.width) × \(manifest.image.height)")
                if let part = manifest.parts[Library.target] {
                    LabeledContent(
                        "Corrected steps", value: "\(part.keptSteps.filter(\.self).count) of \(part.keptSteps.count)")
                    ForEach(part.components.sorted { $0.key < $1.key }, id: \.key) { name, component in
                        LabeledContent(name, value: "\(bytes(component.totalBytes)), \(component.precision)")
                    }
                }
            }
        }
    }

    private func seconds(_ value: Double) -> String { "\(decimal(value, places: value < 10 ? 3 : 1)) s" }

    private func decimal(_ value: Double, places: Int) -> String {
        value.formatted(.number.precision(.fractionLength(places)))
    }

    private func bytes(_ count: Int) -> String { Int64(count).formatted(.byteCount(style: .memory)) }

    extension [Double] {
        fileprivate var mean: Double? { isEmpty ? nil : reduce(0, +) / Double(count) }
    }
#endif
