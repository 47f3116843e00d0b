// A `.pte` in memory: the ExecuTorch runtime as the wheel of Python ships it, which is what the exporter calls, too.
// The JNI library of host/ and the emulated runner of arm/ are made with it.
#pragma once

#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mapped_file.h"

namespace mobile_export {

// Memory that grows with what a method asks for, and goes with it.
class Arena final : public executorch::runtime::MemoryAllocator {
 public:
  Arena() : MemoryAllocator(0, nullptr) {}

  void* allocate(size_t size, size_t alignment) override {
    pieces_.push_back(std::make_unique<uint8_t[]>(size + alignment));
    const auto start = reinterpret_cast<uintptr_t>(pieces_.back().get());
    return reinterpret_cast<void*>((start + alignment - 1) / alignment * alignment);
  }

  void reset() override { pieces_.clear(); }

 private:
  std::vector<std::unique_ptr<uint8_t[]>> pieces_;
};

// One input: its bytes, row-major, of the type that the program declares.
using Bytes = std::vector<uint8_t>;

// The method `forward` of a program. Everything that the runtime refuses becomes a std::runtime_error.
class Program {
 public:
  explicit Program(const std::string& path);

  size_t inputs() const { return method_->inputs_size(); }
  size_t outputs() const { return method_->outputs_size(); }
  size_t input_bytes(size_t index) const;
  size_t output_bytes(size_t index) const;

  // One run: all outputs. Inputs are given anew every time: the runtime's plan lets later values take their place.
  std::vector<std::vector<float>> run(const std::vector<Bytes>& inputs);

 private:
  MappedFile file_;
  std::unique_ptr<executorch::runtime::Program> program_;
  std::vector<std::vector<uint8_t>> planned_;
  std::vector<executorch::runtime::Span<uint8_t>> spans_;
  std::unique_ptr<executorch::runtime::HierarchicalAllocator> planner_;
  Arena lasting_, temporary_;
  std::unique_ptr<executorch::runtime::MemoryManager> memory_;
  std::unique_ptr<executorch::runtime::Method> method_;
};

}  // namespace mobile_export
