// Checks of arguments: an error names the argument, what was expected, and what came.
#pragma once

#include <string>
#include <vector>

#include "common/base/tensor.h"

namespace mmdcn {

inline std::string shape_string(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text += (i ? ", " : "") + std::to_string(tensor.size(i));
  }
  return text + ")";
}

inline std::string shape_string(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, name, ": expected a ", dim,
                  "-dimensional tensor, got shape ", shape_string(tensor));
}

inline void check_shape(const Tensor& tensor, const char* name, const std::vector<int64_t>& shape) {
  bool equal = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; equal && i < shape.size(); ++i) equal = tensor.size(i) == shape[i];
  STD_TORCH_CHECK(equal, name, ": expected shape ", shape_string(shape), ", got ",
                  shape_string(tensor));
}

// Every tensor of a call lives on one device and has one floating-point dtype, those of `first`.
inline void check_like(const Tensor& tensor, const char* name, const Tensor& first,
                       const char* first_name) {
  STD_TORCH_CHECK(tensor.device() == first.device(), name, ": expected the device of ", first_name,
                  ", got another device");
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name, ": expected the dtype of ",
                  first_name, " (", torch::headeronly::toString(first.scalar_type()), "), got ",
                  torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_floating(const Tensor& tensor, const char* name) {
  const ScalarType type = tensor.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
                      type == ScalarType::Half || type == ScalarType::BFloat16,
                  name, ": expected dtype float64, float32, bfloat16 or float16, got ",
                  torch::headeronly::toString(type));
}

inline void check_positive(int64_t value, const char* name) {
  STD_TORCH_CHECK(value > 0, name, ": expected a positive number, got ", value);
}

inline void check_pair(const std::vector<int64_t>& value, const char* name, int64_t minimum) {
  STD_TORCH_CHECK(value.size() == 2 && value[0] >= minimum && value[1] >= minimum, name,
                  ": expected two integers >= ", minimum, ", got ", shape_string(value));
}

// Kernels index the pixels of one image, and a row beyond it, with 32 bits.
inline void check_map_size(int64_t height, int64_t width) {
  STD_TORCH_CHECK(height > 0 && width > 0, "input: expected at least one pixel, got ", height, "x",
                  width);
  STD_TORCH_CHECK(height < (1 << 30) && width < (1 << 30) && height * width < (1 << 30),
                  "input: expected fewer than 2^30 pixels in an image, got ", height, "x", width);
}

}  // namespace mmdcn
