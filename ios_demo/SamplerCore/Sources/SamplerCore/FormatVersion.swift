/// The version of a file format, MAJOR.MINOR: ASCII digits, at most six each, no leading zeros.
struct FormatVersion: Equatable {
    let major: Int
    let minor: Int

    init?(_ text: String) {
        let numbers = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard numbers.count == 2, let major = Self.number(numbers[0]), let minor = Self.number(numbers[1]) else {
            return nil
        }
        self.major = major
        self.minor = minor
    }

    private static func number(_ digits: Substring.UTF8View) -> Int? {
        guard (1...6).contains(digits.count), digits.allSatisfy(isDigit) else { return nil }
        guard digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
        return Int(Substring(digits))
    }
}
