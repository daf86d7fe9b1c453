// Thin conveniences over the LibTorch stable ABI, the only torch interface used by mmdcn.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace mmdcn {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

// An image, or a batch of them, on the device of `like`.
inline Tensor empty_image(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type,
                          bool channels_last) {
  return torch::stable::empty(
      sizes, type, std::nullopt, like.device(), std::nullopt,
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
