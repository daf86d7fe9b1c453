// Thin conveniences over the LibTorch stable ABI, the only torch interface used by mmdcn.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// Torch's own macro of this kind puts the place in the sources in front of the message.
#define MMDCN_CHECK(condition, ...) \
  if (!(condition)) throw std::runtime_error(::mmdcn::concatenate(__VA_ARGS__))

namespace mmdcn {

template <typename... Args>
std::string concatenate(const Args&... args) {
  std::ostringstream text;
  ((text << args), ...);
  return text.str();
}

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_string(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

inline std::vector<int64_t> shape_of(const Tensor& tensor) {
  return {tensor.sizes().begin(), tensor.sizes().end()};
}

inline std::string shape_string(const Tensor& tensor) { return shape_string(shape_of(tensor)); }

// What make() returns: a new tensor. Torch's error names a C function and no tensor.
template <typename F>
Tensor allocated(const std::vector<int64_t>& sizes, const F& make) {
  try {
    return make();
  } catch (const std::exception&) {
    MMDCN_CHECK(false, "there is not enough memory for a tensor of shape ", shape_string(sizes));
    throw;
  }
}

// On the device of `like`, contiguous.
inline Tensor empty_tensor(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return allocated(sizes, [&] { return torch::stable::new_empty(like, sizes, type); });
}
inline Tensor empty_tensor(const Tensor& like, const std::vector<int64_t>& sizes) {
  return empty_tensor(like, sizes, like.scalar_type());
}
inline Tensor zero_tensor(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return allocated(sizes, [&] { return torch::stable::new_zeros(like, sizes, type); });
}
inline Tensor zero_tensor(const Tensor& like, const std::vector<int64_t>& sizes) {
  return zero_tensor(like, sizes, like.scalar_type());
}

inline Tensor contiguous_tensor(const Tensor& tensor,
                                MemoryFormat format = MemoryFormat::Contiguous) {
  return allocated(shape_of(tensor), [&] { return torch::stable::contiguous(tensor, format); });
}

inline bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && !t.is_contiguous() && t.stride(1) == 1 && t.stride(3) == t.size(1) &&
         t.stride(2) == t.size(3) * t.stride(3) && t.stride(0) == t.size(2) * t.stride(2);
}

inline std::optional<Tensor> contiguous_tensor(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(contiguous_tensor(*tensor)) : std::nullopt;
}

// The data of an optional tensor, null when there is none.
template <typename T>
inline const T* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

// An image, or a batch of them, on the device of `like`.
inline Tensor empty_image(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type,
                          bool channels_last) {
  return allocated(sizes, [&] {
    return torch::stable::empty(
        sizes, type, std::nullopt, like.device(), std::nullopt,
        channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  });
}

inline Tensor cast(const Tensor& tensor, ScalarType type) {
  if (tensor.scalar_type() == type) return tensor;
  return allocated(shape_of(tensor), [&] { return torch::stable::to(tensor, type); });
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
