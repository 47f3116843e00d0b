import XCTest

@testable import SamplerCore

final class PackageChainTests: XCTestCase {
    private let chain = PackageChain<Int>([
        .init(inputs: ["sample", "timestep"]) { given in
            XCTAssertEqual(given, ["sample": 2, "timestep": 5])
            return ["hidden": 10, "skip": 7]
        },
        .init(inputs: ["hidden"]) { given in
            XCTAssertEqual(given, ["hidden": 10])
            return ["hidden": 11]
        },
        .init(inputs: ["skip", "hidden", "timestep"]) { ["noise_pred": ($0["skip"] ?? 0) * ($0["hidden"] ?? 0)] },
    ])

    func testEachPackageTakesWhatItNamesFromAllBefore() throws {
        XCTAssertEqual(chain.inputs, ["sample", "timestep", "hidden", "skip"])
        XCTAssertEqual(try chain.run(["sample": 2, "timestep": 5, "other": 9])["noise_pred"], 77)
    }

    func testAValueThatNothingGivesIsRefusedByName() {
        let broken = PackageChain<Int>([.init(inputs: ["sample"]) { _ in [:] }, .init(inputs: ["hidden"]) { $0 }])
        XCTAssertThrowsError(try broken.run(["sample": 1])) { error in
            XCTAssertEqual("\(error)", "package 2 takes hidden, which nothing before it gives.")
        }
    }

    func testACancelledTaskStopsBetweenTwoPackages() async throws {
        let task = Task {
            var runs = 0
            let link = PackageChain<Int>.Link(inputs: []) { _ in
                runs += 1
                withUnsafeCurrentTask { $0?.cancel() }
                return [:]
            }
            do {
                _ = try PackageChain([link, link]).run([:])
            } catch is CancellationError {
                return runs
            }
            return -1
        }
        let runs = try await task.value
        XCTAssertEqual(runs, 1)
    }
}
