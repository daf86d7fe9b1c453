// Memory of the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/base/dtypes.h"

namespace mmdcn {

// Memory that is not initialised, unlike std::vector's.
template <typename T>
using Buffer = std::unique_ptr<T[]>;

template <typename T>
inline Buffer<T> make_buffer(int64_t size) {
  return std::make_unique_for_overwrite<T[]>(size);
}

template <typename T>
inline Buffer<T> make_zeros(int64_t size) {
  Buffer<T> buffer = make_buffer<T>(size);
  std::fill_n(buffer.get(), size, static_cast<T>(0));
  return buffer;
}

template <typename From, typename To>
inline void convert_copy(const From* __restrict src, int64_t count, To* __restrict dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = convert<To>(src[i]);
}

}  // namespace mmdcn
