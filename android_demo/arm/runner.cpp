// Runs the `forward` method of a .pte for a program on the other end of two pipes: emulator.py says how.
//
// The first line of stdout has the sizes of all inputs and outputs in bytes. After that, each request on stdin is the
// bytes of all inputs in order, each answer on stdout the bytes of all outputs in order, until stdin ends. Numbers are
// little-endian. An error is a line on stderr and exit code 1.
#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

using namespace executorch::runtime;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;

namespace {

constexpr size_t ALIGNMENT = 64;  // what XNNPACK reads its weights with

[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "runner: %s\n", message.c_str());
    std::_Exit(1);
}

void require(Error error, const char* what) {
    if (error != Error::Ok) fail(std::string(what) + " failed with error " + std::to_string(static_cast<int>(error)));
}

template <typename T>
T require(Result<T> result, const char* what) {
    require(result.error(), what);
    return std::move(result.get());
}

class Bytes {
 public:
    explicit Bytes(size_t size)
        : size_(size), memory_(std::aligned_alloc(ALIGNMENT, (size / ALIGNMENT + 1) * ALIGNMENT)) {
        if (memory_ == nullptr) fail("no memory for " + std::to_string(size) + " bytes");
    }
    Bytes(Bytes&& other) : size_(other.size_), memory_(other.memory_) { other.memory_ = nullptr; }
    ~Bytes() { std::free(memory_); }
    uint8_t* data() const { return static_cast<uint8_t*>(memory_); }
    size_t size() const { return size_; }

 private:
    size_t size_;
    void* memory_;
};

class FileLoader final : public DataLoader {
 public:
    explicit FileLoader(const char* path) : content_(read(path)) {}
    Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
        if (offset > content_.size() || size > content_.size() - offset) return Error::InvalidArgument;
        return FreeableBuffer(content_.data() + offset, size, nullptr);
    }
    Result<size_t> size() const override { return content_.size(); }

 private:
    static Bytes read(const char* path) {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        if (!file) fail(std::string("cannot read ") + path);
        Bytes content(file.tellg());
        file.seekg(0);
        file.read(reinterpret_cast<char*>(content.data()), content.size());
        return content;
    }
    Bytes content_;
};

/// Gives what is asked for, and takes it back when the runner resets it or ends.
class GrowingAllocator final : public MemoryAllocator {
 public:
    GrowingAllocator() : MemoryAllocator(0, nullptr) {}
    void* allocate(size_t size, size_t alignment) override {
        blocks_.emplace_back(size + alignment);
        const auto start = reinterpret_cast<uintptr_t>(blocks_.back().data());
        return reinterpret_cast<void*>((start + alignment - 1) / alignment * alignment);
    }
    void reset() override { blocks_.clear(); }

 private:
    std::vector<Bytes> blocks_;
};

/// Exactly `size` bytes; false where the stream ended before the first of them.
bool receive(uint8_t* data, size_t size) {
    const size_t got = std::fread(data, 1, size, stdin);
    if (got != 0 && got != size) fail("the last request broke off");
    return got == size;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) fail("usage: runner MODEL.pte");
    runtime_init();
    FileLoader loader(arguments[1]);
    const Program program = require(Program::load(&loader, Program::Verification::InternalConsistency), "loading");
    const MethodMeta meta = require(program.method_meta("forward"), "looking for forward");

    std::vector<Bytes> planned;
    std::vector<Span<uint8_t>> spans;
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
        planned.emplace_back(require(meta.memory_planned_buffer_size(i), "memory planning"));
        spans.emplace_back(planned.back().data(), planned.back().size());
    }
    HierarchicalAllocator activations({spans.data(), spans.size()});
    GrowingAllocator lasting, passing;
    MemoryManager memory(&lasting, &activations, &passing);
    Method method = require(program.load_method("forward", &memory), "loading forward");

    std::vector<TensorInfo> inputs;
    std::vector<Bytes> values;
    std::string sizes = "inputs";
    for (size_t i = 0; i < meta.num_inputs(); ++i) {
        inputs.push_back(require(meta.input_tensor_meta(i), "the signature"));
        values.emplace_back(inputs.back().nbytes());
        sizes += " " + std::to_string(inputs.back().nbytes());
    }
    sizes += " outputs";
    for (size_t i = 0; i < meta.num_outputs(); ++i) {
        sizes += " " + std::to_string(require(meta.output_tensor_meta(i), "the signature").nbytes());
    }
    std::printf("%s\n", sizes.c_str());
    std::fflush(stdout);

    while (true) {
        for (size_t i = 0; i < values.size(); ++i) {
            if (!receive(values[i].data(), values[i].size())) {
                if (i != 0) fail("the last request broke off");
                std::_Exit(0);  // without the destructors of a library that is as large as the rest of the system
            }
        }
        // Inputs lie in memory that the network uses again: each run needs them anew.
        for (size_t i = 0; i < values.size(); ++i) {
            std::vector<executorch::aten::SizesType> shape(inputs[i].sizes().begin(), inputs[i].sizes().end());
            auto order = inputs[i].dim_order();
            std::vector<executorch::aten::DimOrderType> axes(order.begin(), order.end());
            TensorImpl tensor(inputs[i].scalar_type(), shape.size(), shape.data(), values[i].data(), axes.data());
            require(method.set_input(EValue(Tensor(&tensor)), i), "setting an input");
        }
        require(method.execute(), "running");
        for (size_t i = 0; i < meta.num_outputs(); ++i) {
            const Tensor output = method.get_output(i).toTensor();
            std::fwrite(output.const_data_ptr(), 1, output.nbytes(), stdout);
        }
        std::fflush(stdout);
        passing.reset();
    }
}
