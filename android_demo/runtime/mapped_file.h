// A file, mapped into memory page by page as it is read: a program's weights are not copied.
#pragma once

#include <executorch/runtime/core/data_loader.h>

#include <cstring>
#include <string>

namespace mobile_export {

class MappedFile final : public executorch::runtime::DataLoader {
 public:
  // Throws std::runtime_error for a file that cannot be mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  executorch::runtime::Result<executorch::runtime::FreeableBuffer> load(
      size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset > size_ || size > size_ - offset) return executorch::runtime::Error::InvalidArgument;
    return executorch::runtime::FreeableBuffer(data_ + offset, size, nullptr);
  }

  executorch::runtime::Error load_into(size_t offset, size_t size, const SegmentInfo&, void* place) const override {
    if (offset > size_ || size > size_ - offset) return executorch::runtime::Error::InvalidArgument;
    std::memcpy(place, data_ + offset, size);
    return executorch::runtime::Error::Ok;
  }

  executorch::runtime::Result<size_t> size() const override { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mobile_export
