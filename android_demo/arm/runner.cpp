// Runs the `forward` method of a .pte for a program on the other end of two pipes: emulator.py says how.
//
// The first line of stdout has the sizes of all inputs and outputs in bytes. After that, each request on stdin is the
// bytes of all inputs in order, each answer on stdout the bytes of all outputs in order, until stdin ends. Numbers are
// little-endian. An error is a line on stderr and exit code 1.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "program.h"

using mobile_export::Bytes;
using mobile_export::Program;

namespace {

// Ends without the destructors of a library that is as large as the rest of the system.
[[noreturn]] void end(int code) {
  std::fflush(nullptr);
  std::_Exit(code);
}

// Fills the inputs; false where stdin ended before the first of their bytes.
bool receive(std::vector<Bytes>& inputs) {
  bool begun = false;
  for (Bytes& input : inputs) {
    const size_t got = std::fread(input.data(), 1, input.size(), stdin);
    begun = begun || got != 0;
    if (got != input.size() && begun) throw std::runtime_error("the last request broke off");
  }
  return begun;
}

void answer(Program& program) {
  std::vector<Bytes> inputs(program.inputs());
  std::printf("inputs");
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i].resize(program.input_bytes(i));
    std::printf(" %zu", inputs[i].size());
  }
  std::printf(" outputs");
  for (size_t i = 0; i < program.outputs(); ++i) std::printf(" %zu", program.output_bytes(i));
  std::printf("\n");
  std::fflush(stdout);
  while (receive(inputs)) {
    for (const std::vector<float>& output : program.run(inputs)) {
      std::fwrite(output.data(), sizeof(float), output.size(), stdout);
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 2) throw std::runtime_error("usage: runner MODEL.pte");
    Program program(arguments[1]);
    answer(program);
    end(0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "runner: %s\n", error.what());
    end(1);
  }
}
