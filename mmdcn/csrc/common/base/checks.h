// Checks of arguments: an error names the argument, what was expected, and what came.
#pragma once

#include <initializer_list>
#include <vector>

#include "common/base/tensor.h"

namespace mmdcn {

// Of a number of pixels, taps, groups and the like. Sums and products of two of them fit 64 bits.
constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
  MMDCN_CHECK(tensor.dim() == dim, name, ": expected a ", dim, "-dimensional tensor, got shape ",
              shape_string(tensor));
}

inline void check_shape(const Tensor& tensor, const char* name, const std::vector<int64_t>& shape) {
  bool equal = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; equal && i < shape.size(); ++i) equal = tensor.size(i) == shape[i];
  MMDCN_CHECK(equal, name, ": expected shape ", shape_string(shape), ", got ",
              shape_string(tensor));
}

// Every tensor of a call lives on one device and has one floating-point dtype, those of `first`.
inline void check_like(const Tensor& tensor, const char* name, const Tensor& first,
                       const char* first_name) {
  MMDCN_CHECK(tensor.device() == first.device(), name, ": expected the device of ", first_name,
              ", got another device");
  MMDCN_CHECK(tensor.scalar_type() == first.scalar_type(), name, ": expected the dtype of ",
              first_name, " (", torch::headeronly::toString(first.scalar_type()), "), got ",
              torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_floating(const Tensor& tensor, const char* name) {
  const ScalarType type = tensor.scalar_type();
  MMDCN_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                  type == ScalarType::BFloat16,
              name, ": expected dtype float64, float32, bfloat16 or float16, got ",
              torch::headeronly::toString(type));
}

inline void check_positive(int64_t value, const char* name) {
  MMDCN_CHECK(value > 0, name, ": expected a positive number, got ", value);
  MMDCN_CHECK(value <= kMaxSize, name, ": expected a number below 2^31, got ", value);
}

inline void check_pair(const std::vector<int64_t>& value, const char* name, int64_t minimum) {
  MMDCN_CHECK(value.size() == 2 && value[0] >= minimum && value[1] >= minimum, name,
              ": expected two integers >= ", minimum, ", got ", shape_string(value));
  MMDCN_CHECK(value[0] <= kMaxSize && value[1] <= kMaxSize, name,
              ": expected integers below 2^31, got ", shape_string(value));
}

// The product of sizes on which the shape of an argument depends.
inline int64_t product(const char* name, std::initializer_list<int64_t> sizes) {
  int64_t result = 1;
  for (const int64_t size : sizes) {
    MMDCN_CHECK(!__builtin_mul_overflow(result, size, &result), name,
                ": expected a size that 64 bits can count, got one that is larger");
  }
  return result;
}

// Kernels index the pixels of one image, and a row beyond it, with 32 bits, and float32 holds
// positions along an axis up to 2^24 exactly.
inline void check_map_size(int64_t height, int64_t width) {
  MMDCN_CHECK(height > 0 && width > 0, "input: expected at least one pixel, got ", height, "x",
              width);
  constexpr int64_t kLongest = 1 << 24;
  MMDCN_CHECK(height <= kLongest && width <= kLongest && height * width < (1 << 30),
              "input: expected at most 2^24 rows and columns and fewer than 2^30 pixels in an "
              "image, got ",
              height, "x", width);
}

}  // namespace mmdcn
