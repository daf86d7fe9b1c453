// Vectors of a fixed number of elements, for inner loops that must stay in registers.
//
// GCC and Clang lower them to what the target of the enclosing function has.
#pragma once

#include "common/convert.h"
#include "common/cpu.h"

namespace mmdcn {

template <typename T, int N>
struct Simd {
  typedef T type __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T, int N>
using Vec = typename Simd<T, N>::type;

// Lanes of a full vector of elements stored as S. Conversions widen best into half a vector.
template <typename S>
constexpr int kLanes = std::is_same_v<S, float> ? 16 : 8;

// Loads N elements stored as S, converted to the type they are computed in.
template <int N, typename S>
MMDCN_INLINE Vec<Compute<S>, N> load_vec(const S* from) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    return *reinterpret_cast<const Vec<S, N>*>(from);
  } else {
    using Bits = Vec<uint32_t, N>;
    const Bits raw = __builtin_convertvector(*reinterpret_cast<const Vec<uint16_t, N>*>(from), Bits);
    if constexpr (std::is_same_v<S, BFloat16>) {
      return reinterpret_cast<Vec<float, N>>(raw << 16);
    } else {  // as to_compute(Half)
      const Vec<float, N> scaled = reinterpret_cast<Vec<float, N>>((raw & 0x7fffu) << 13) * 0x1p112f;
      const Bits special = reinterpret_cast<Bits>((raw & 0x7c00u) == 0x7c00u) & 0x7f800000u;
      return reinterpret_cast<Vec<float, N>>(reinterpret_cast<Bits>(scaled) | special |
                                             (raw & 0x8000u) << 16);
    }
  }
}

template <int N, typename S>
MMDCN_INLINE void store_vec(S* to, const Vec<Compute<S>, N>& value) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    *reinterpret_cast<Vec<S, N>*>(to) = value;
  } else if constexpr (std::is_same_v<S, BFloat16>) {  // as from_compute<BFloat16>
    using Bits = Vec<uint32_t, N>;
    const Bits bits = reinterpret_cast<Bits>(value);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits nan = reinterpret_cast<Bits>((bits & 0x7fffffffu) > 0x7f800000u);
    *reinterpret_cast<Vec<uint16_t, N>*>(to) =
        __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded), Vec<uint16_t, N>);
  } else {
    for (int i = 0; i < N; ++i) to[i] = from_compute<S>(value[i]);
  }
}

// The sums over the lanes of four vectors.
template <typename T, int N>
MMDCN_INLINE Vec<T, 4> sum_lanes_of_four(const Vec<T, N> (&value)[4]) {
  if constexpr (N == 1) {
    return Vec<T, 4>{value[0][0], value[1][0], value[2][0], value[3][0]};
  } else if constexpr (N > 4) {
    Vec<T, N / 2> folded[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const auto* halves = reinterpret_cast<const Vec<T, N / 2>*>(&value[i]);
      folded[i] = halves[0] + halves[1];
    }
    return sum_lanes_of_four<T, N / 2>(folded);
  } else {
    static_assert(N == 4);
    const auto pairs = [](Vec<T, 4> a, Vec<T, 4> b) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
    };
    const Vec<T, 4> ab = pairs(value[0], value[1]), cd = pairs(value[2], value[3]);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  }
}

}  // namespace mmdcn
