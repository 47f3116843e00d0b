import Foundation

extension FormatError {
    /// The refusal in words for somebody who has never seen the format: what is wrong, and what to do.
    public var explanation: String {
        Self.explanations[name] ?? "This bundle cannot be used (\(name)). Export it again."
    }

    static let explanations: [String: String] = {
        let groups: [(names: String, text: String)] = [
            (
                "no-manifest",
                "This folder is not a bundle: it has no manifest.json. Choose the folder that the export made."
            ),
            (
                "other-format",
                "This is not a bundle, or a file in it is of another kind. Choose the folder that the export made."
            ),
            (
                "unknown-major-version",
                "This bundle was made for another version of the app. Update the app, or export the bundle again."
            ),
            (
                "link bad-path",
                "This bundle points at files outside of its own folder. Do not trust where it came from."
            ),
            ("missing-file", "A file of this bundle is missing. Copy all of the folder again."),
            (
                "wrong-size changed-file truncated trailing-bytes",
                "A file of this bundle is incomplete or was changed after the export. Copy the folder again."
            ),
            (
                "extra-file",
                "Something was added to the network in this bundle after the export. Copy the folder again."
            ),
            (
                "other-artifact",
                "The correction in this bundle was made for another network. Export the bundle again."
            ),
            (
                "wrong-channels",
                "The correction in this bundle is for samples of another kind. Export the bundle again."
            ),
            (
                """
                too-large manifest-too-large too-many-files header-too-large out-of-range too-many-steps \
                too-many-channels too-much-history
                """,
                "A file of this bundle states sizes that no bundle has. It was not opened."
            ),
            (
                """
                not-utf8 not-json duplicate-key bad-header bad-version bad-manifest unlisted-file unknown-tensor \
                missing-tensor wrong-dtype wrong-shape overlapping-tensors gap missing-metadata bad-metadata
                """,
                "A file of this bundle is damaged or was not made by the export. Copy it again, or export it again."
            ),
            (
                "not-finite timesteps-not-decreasing bad-plan gain-out-of-bounds",
                "The correction in this bundle holds numbers that would spoil every picture. Export the bundle again."
            ),
        ]
        let pairs = groups.flatMap { group in group.names.split(separator: " ").map { (String($0), group.text) } }
        return Dictionary(uniqueKeysWithValues: pairs)
    }()
}

/// What a person is told of any error of this package, and of others in their own words.
public func explanation(of error: any Error) -> String {
    switch error {
    case let error as FormatError: "\(error.explanation)\n\n\(error)"
    case let error as UsageError: error.description.prefix(1).uppercased() + error.description.dropFirst()
    case let error as NonFiniteError:
        "The network gave something that is no number, so there is no picture. Try another compute unit.\n\n\(error)"
    case is CancellationError: "Cancelled."
    default: error.localizedDescription
    }
}
