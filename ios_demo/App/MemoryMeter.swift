#if canImport(Darwin)
    import Darwin
#endif

/// What the system counts as this app's memory, in bytes; the figure that it ends apps by. nil where it does not tell.
enum MemoryMeter {
    static func footprint() -> Int? {
        #if canImport(Darwin)
            var info = task_vm_info_data_t()
            var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
            let status = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
                }
            }
            return status == KERN_SUCCESS ? Int(info.phys_footprint) : nil
        #else
            return nil
        #endif
    }
}
