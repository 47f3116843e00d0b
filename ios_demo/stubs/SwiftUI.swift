@_exported import CoreGraphics
@_exported import Foundation
@_exported import UniformTypeIdentifiers

@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder var body: Body { get }
}

extension Never: View { public var body: Never { fatalError() } }

public protocol Leaf: View where Body == Never {}
extension Leaf { public var body: Never { fatalError() } }

public struct Group<each Content: View>: Leaf {}
public struct Either<First: View, Second: View>: Leaf {}
extension Optional: View where Wrapped: View { public var body: Never { fatalError() } }

@resultBuilder public enum ViewBuilder {
    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> Group<repeat each Content> {
        Group()
    }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { content }
    public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
    public static func buildEither<A: View, B: View>(first: A) -> Either<A, B> { Either() }
    public static func buildEither<A: View, B: View>(second: B) -> Either<A, B> { Either() }
}

@MainActor @preconcurrency public protocol Scene {}
@MainActor @preconcurrency public protocol App {
    associatedtype Body: Scene
    var body: Body { get }
    init()
}
extension App { public static func main() {} }
public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
}

@propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { self }
    public init(get: @escaping () -> Value, set: @escaping (Value) -> Void) {}
    public subscript<Subject>(dynamicMember path: WritableKeyPath<Value, Subject>) -> Binding<Subject> { fatalError() }
}

@propertyWrapper public struct State<Value> {
    public init(wrappedValue: Value) {}
    public init(initialValue: Value) {}
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { fatalError() }
}

@propertyWrapper @dynamicMemberLookup public struct Bindable<Value: AnyObject> {
    public var wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public var projectedValue: Bindable<Value> { self }
    public subscript<Subject>(dynamicMember path: ReferenceWritableKeyPath<Value, Subject>) -> Binding<Subject> {
        fatalError()
    }
}

public enum Axis { case horizontal, vertical }
public struct ButtonRole: Sendable {
    public static let cancel = ButtonRole()
    public static let destructive = ButtonRole()
}

public struct Text: Leaf { public init(_ text: String) {} }
public struct Image: Leaf {
    public enum Interpolation { case none, low, medium, high }
    public init(decorative image: CGImage, scale: CGFloat) {}
    public func interpolation(_ interpolation: Interpolation) -> Image { self }
    public func resizable() -> Image { self }
}
public struct Form<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct List<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct HStack<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct NavigationStack<Content: View>: Leaf { public init(@ViewBuilder root: () -> Content) {} }
public struct Section<Content: View>: Leaf {
    public init(@ViewBuilder content: () -> Content) {}
    public init(_ title: String, @ViewBuilder content: () -> Content) {}
}
public struct NavigationLink<Destination: View>: Leaf {
    public init(_ title: String, @ViewBuilder destination: () -> Destination) {}
}
public struct ContentUnavailableView: Leaf {
    public init(_ title: String, systemImage: String, description: Text?) {}
}
public struct ProgressView: Leaf {
    public init(_ title: String) {}
    public init(_ title: String, value: Double?, total: Double = 1) {}
}
public struct Button: Leaf {
    public init(_ title: String, role: ButtonRole? = nil, action: @escaping @MainActor () -> Void) {}
    public init(_ title: String, systemImage: String, action: @escaping @MainActor () -> Void) {}
}
public struct Toggle: Leaf { public init(_ title: String, isOn: Binding<Bool>) {} }
public struct LabeledContent: Leaf { public init(_ title: String, value: String) {} }
public struct SharePreview { public init(_ title: String) {} }
public struct ShareLink: Leaf {
    public init(_ title: String, item: String) {}
    public init(_ title: String, item: Image, preview: SharePreview) {}
}
public struct TextField: Leaf {
    public init(_ title: String, text: Binding<String>, axis: Axis) {}
    public init<Format: ParseableFormatStyle>(_ title: String, value: Binding<Format.FormatInput>, format: Format)
    where Format.FormatOutput == String {}
}
public struct Picker<Selection: Hashable, Content: View>: Leaf {
    public init(_ title: String, selection: Binding<Selection>, @ViewBuilder content: () -> Content) {}
}
public struct ForEach<Data: RandomAccessCollection, Content: View>: Leaf {
    public init<ID: Hashable>(
        _ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content
    ) {}
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content)
    where Data.Element: Identifiable {}
    public func onDelete(perform action: ((IndexSet) -> Void)?) -> some View { self }
}

public struct IconOnlyLabelStyle {}
extension IconOnlyLabelStyle { public static var iconOnly: IconOnlyLabelStyle { IconOnlyLabelStyle() } }

extension View {
    public func overlay(@ViewBuilder content: () -> some View) -> some View { self }
    public func navigationTitle(_ title: String) -> some View { self }
    public func toolbar(@ViewBuilder content: () -> some View) -> some View { self }
    public func disabled(_ disabled: Bool) -> some View { self }
    public func tag(_ tag: some Hashable) -> some View { self }
    public func scaledToFit() -> some View { self }
    public func labelStyle(_ style: IconOnlyLabelStyle) -> some View { self }
    public func onAppear(perform action: (() -> Void)? = nil) -> some View { self }
    public func onDisappear(perform action: (() -> Void)? = nil) -> some View { self }
    public func onChange<Value: Equatable>(of value: Value, _ action: @escaping (Value, Value) -> Void)
        -> some View
    {
        self
    }
    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType],
        onCompletion: @escaping (Result<URL, any Error>) -> Void
    ) -> some View { self }
    public func alert(
        _ title: String, isPresented: Binding<Bool>, @ViewBuilder actions: () -> some View,
        @ViewBuilder message: () -> some View
    ) -> some View { self }
}

/// Of Apple's Foundation.
extension URL {
    public func startAccessingSecurityScopedResource() -> Bool { false }
    public func stopAccessingSecurityScopedResource() {}
}
