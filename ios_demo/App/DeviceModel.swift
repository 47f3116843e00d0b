import Foundation

/// What the report calls this device, such as "iPhone16,1".
enum DeviceModel {
    static var name: String {
        var info = utsname()
        guard uname(&info) == 0 else { return "unknown device" }
        return withUnsafeBytes(of: &info.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
