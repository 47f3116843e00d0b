import SwiftUI
import UniformTypeIdentifiers

/// The list of bundles, and the way to a new one.
struct LibraryView: View {
    @Bindable var library: Library
    @State private var choosing = false

    var body: some View {
        NavigationStack {
            List {
                if let share = library.installing {
                    HStack {
                        ProgressView("Copying and checking", value: share)
                        Button("Cancel", role: .cancel) { library.cancelInstall() }
                    }
                }
                ForEach(library.names, id: \.self) { name in
                    NavigationLink(name) { BundleView(name: name) }
                }
                .onDelete { places in
                    for name in places.map({ library.names[$0] }) { library.remove(name) }
                }
            }
            .overlay {
                if library.names.isEmpty && library.installing == nil {
                    ContentUnavailableView(
                        "No bundles yet", systemImage: "square.and.arrow.down",
                        description: Text("Copy a folder that mobile-export made to this device, then choose it here."))
                }
            }
            .navigationTitle("Bundles")
            .toolbar {
                Button("Add", systemImage: "plus") { choosing = true }
                    .disabled(library.installing != nil)
            }
            .fileImporter(isPresented: $choosing, allowedContentTypes: [.folder]) { result in
                switch result {
                case .success(let url): library.install(from: url)
                case .failure(let error): library.failure = error.localizedDescription
                }
            }
            .failureAlert("This bundle was not added", $library.failure)
        }
        .onAppear { library.refresh() }
    }
}

extension View {
    /// An alert while there is a message.
    func failureAlert(_ title: String, _ message: Binding<String?>) -> some View {
        let isPresented = Binding {
            message.wrappedValue != nil
        } set: { shown in
            if !shown { message.wrappedValue = nil }
        }
        return alert(title, isPresented: isPresented) {
            Button("OK") {}
        } message: {
            Text(message.wrappedValue ?? "")
        }
    }
}
