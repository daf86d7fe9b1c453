// Thin conveniences over the LibTorch stable ABI, the only torch interface used by mmdcn.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mmdcn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

// Output length of a sliding window along one axis; an empty output is an error.
inline int64_t conv_out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                             int64_t dilation) {
  const int64_t span = size + 2 * padding - (dilation * (kernel - 1) + 1);
  STD_TORCH_CHECK(span >= 0, "input: expected a padded size of at least the dilated kernel size ",
                  dilation * (kernel - 1) + 1, ", got ", size + 2 * padding);
  return span / stride + 1;
}

// Kernels index the pixels of one image, and a row beyond it, with 32 bits.
inline void check_map_size(int64_t height, int64_t width) {
  STD_TORCH_CHECK(height > 0 && width > 0, "input: expected at least one pixel, got ", height, "x",
                  width);
  STD_TORCH_CHECK(height < (1 << 30) && width < (1 << 30) && height * width < (1 << 30),
                  "input: expected fewer than 2^30 pixels in an image, got ", height, "x", width);
}

inline bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && !t.is_contiguous() && t.stride(1) == 1 && t.stride(3) == t.size(1) &&
         t.stride(2) == t.size(3) * t.stride(3) && t.stride(0) == t.size(2) * t.stride(2);
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(torch::stable::contiguous(*tensor)) : std::nullopt;
}

// The data of an optional tensor, null when there is none.
template <typename T>
inline const T* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

inline Tensor empty_image(const std::vector<int64_t>& sizes, ScalarType type, bool channels_last) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty(
      sizes, type, std::nullopt, std::nullopt, std::nullopt,
      channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline Tensor cast(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// Calls f with a value of the C++ type that stores `type`: double, float, BFloat16 or Half.
template <typename F>
auto dispatch_floating(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(torch::headeronly::BFloat16{});
    case ScalarType::Half:
      return f(torch::headeronly::Half{});
    default:  // check_floating has refused the rest
      return f(float{});
  }
}

// The dtype in which a kernel accumulates: float64 for float64, else float32.
inline ScalarType compute_scalar_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace mmdcn
