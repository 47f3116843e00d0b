#include "program.h"

#include <executorch/runtime/platform/runtime.h>

namespace mobile_export {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Result;
using executorch::runtime::Span;

namespace {

constexpr const char* kMethod = "forward";

[[noreturn]] void refuse(const std::string& what, Error error) {
  throw std::runtime_error(what + ": the runtime's error " + std::to_string(static_cast<int>(error)));
}

void require(Error error, const std::string& what) {
  if (error != Error::Ok) refuse(what, error);
}

template <typename T>
T required(Result<T> result, const std::string& what) {
  if (!result.ok()) refuse(what, result.error());
  return std::move(*result);
}

}  // namespace

Program::Program(const std::string& path) : file_(path) {
  using executorch::runtime::HierarchicalAllocator;
  using executorch::runtime::MemoryManager;
  using executorch::runtime::Method;
  static const bool started = (executorch::runtime::runtime_init(), true);
  (void)started;
  const auto verification = executorch::runtime::Program::Verification::InternalConsistency;
  program_ = std::make_unique<executorch::runtime::Program>(
      required(executorch::runtime::Program::load(&file_, verification), path + " is no program"));
  const auto meta = required(program_->method_meta(kMethod), path + " has no method forward");
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
    planned_.emplace_back(required(meta.memory_planned_buffer_size(i), "a planned buffer has no size"));
    spans_.emplace_back(planned_.back().data(), planned_.back().size());
  }
  planner_ = std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(spans_.data(), spans_.size()));
  memory_ = std::make_unique<MemoryManager>(&lasting_, planner_.get(), &temporary_);
  method_ = std::make_unique<Method>(required(program_->load_method(kMethod, memory_.get()), path + " cannot be loaded"));
}

size_t Program::input_bytes(size_t index) const {
  return required(method_->method_meta().input_tensor_meta(index), "an input is no tensor").nbytes();
}

size_t Program::output_bytes(size_t index) const {
  return required(method_->method_meta().output_tensor_meta(index), "an output is no tensor").nbytes();
}

std::vector<std::vector<float>> Program::run(const std::vector<Bytes>& inputs) {
  const auto meta = method_->method_meta();
  std::vector<std::vector<SizesType>> sizes(inputs.size());
  std::vector<std::unique_ptr<TensorImpl>> tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto input = required(meta.input_tensor_meta(i), "an input is no tensor");
    sizes[i].assign(input.sizes().begin(), input.sizes().end());
    tensors.push_back(std::make_unique<TensorImpl>(
        input.scalar_type(), sizes[i].size(), sizes[i].data(), const_cast<uint8_t*>(inputs[i].data()),
        const_cast<uint8_t*>(input.dim_order().data())));
    require(method_->set_input(EValue(Tensor(tensors.back().get())), i), "an input was refused");
  }
  require(method_->execute(), "the network failed");
  std::vector<std::vector<float>> results;
  for (size_t i = 0; i < outputs(); ++i) {
    const EValue& output = method_->get_output(i);
    if (!output.isTensor() || output.toTensor().scalar_type() != ScalarType::Float) {
      throw std::runtime_error("an output of the network holds no float32 numbers");
    }
    const Tensor result = output.toTensor();
    results.emplace_back(result.const_data_ptr<float>(), result.const_data_ptr<float>() + result.numel());
  }
  return results;
}

}  // namespace mobile_export
