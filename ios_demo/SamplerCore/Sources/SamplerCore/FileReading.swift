import Foundation

/// The bytes of a file. One of more than `limit` is refused by `name` before more than that is read.
func readFile(_ url: URL, atMost limit: Int, else name: String = "too-large") throws -> [UInt8] {
    let file = try FileHandle(forReadingFrom: url)
    defer { try? file.close() }
    let data = try file.read(upToCount: limit + 1) ?? Data()
    guard data.count <= limit else {
        throw FormatError(name, "\(url.lastPathComponent) has more than \(limit) bytes.")
    }
    return [UInt8](data)
}
