// Storage types and the types in which they are computed.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/base/macros.h"

namespace mmdcn {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// float64 is computed in float64, everything else in float32. Integers are bits that are only
// moved.
template <typename S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <>
struct ComputeType<uint16_t> {
  using type = uint32_t;
};
template <>
struct ComputeType<uint32_t> {
  using type = uint32_t;
};
template <typename S>
using Compute = typename ComputeType<S>::type;

MMDCN_HOST_DEVICE float to_compute(float value) { return value; }
MMDCN_HOST_DEVICE double to_compute(double value) { return value; }
MMDCN_HOST_DEVICE uint32_t to_compute(uint16_t value) { return value; }

#if defined(__CUDACC__)
MMDCN_HOST_DEVICE float to_compute(BFloat16 value) { return static_cast<float>(value); }
MMDCN_HOST_DEVICE float to_compute(Half value) { return static_cast<float>(value); }
#else
namespace detail {
MMDCN_HOST_DEVICE float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
MMDCN_HOST_DEVICE uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
}  // namespace detail

// Plain integer arithmetic, so that a loop of conversions vectorises on any instruction set.
MMDCN_HOST_DEVICE float to_compute(BFloat16 value) {
  return detail::float_from_bits(static_cast<uint32_t>(value.x) << 16);
}
MMDCN_HOST_DEVICE float to_compute(Half value) {
  const uint32_t h = value.x;
  // Moves the exponent and mantissa into place, then rescales the bias; subnormals come out right.
  const float scaled = detail::float_from_bits((h & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN
  return detail::float_from_bits(detail::bits_from_float(scaled) | special | (h & 0x8000u) << 16);
}
#endif

// Rounds to nearest even.
template <typename S>
MMDCN_HOST_DEVICE S from_compute(Compute<S> value) {
  return static_cast<S>(value);
}

#if !defined(__CUDACC__)
template <>
MMDCN_HOST_DEVICE BFloat16 from_compute<BFloat16>(float value) {
  const uint32_t bits = detail::bits_from_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = 0x7fc0u;
  return BFloat16(static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded),
                  BFloat16::from_bits());
}
#endif

// From one storage type to another that is computed alike.
template <typename To, typename From>
MMDCN_HOST_DEVICE To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return from_compute<To>(to_compute(value));
  }
}

}  // namespace mmdcn
