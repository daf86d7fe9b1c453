// Vectors of a fixed number of elements, for inner loops that must stay in registers. GCC and Clang
// lower them to what the target of the enclosing function has.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "common/base/dtypes.h"
#include "common/cpu/target.h"

namespace mmdcn {

template <typename T, int N>
struct VecOf {
  typedef T type __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T, int N>
using Vec = typename VecOf<T, N>::type;

// Lanes of a vector of kBytes for elements stored as S: it holds them as they are computed.
template <typename S, int kBytes>
constexpr int kLanes = kBytes / sizeof(Compute<S>);

template <int N>
using Int = std::integral_constant<int, N>;

// Calls f(vectors, lanes, channel) for chunks that cover channels [begin, end), of N lanes as long
// as there are enough channels.
template <int N, typename F>
MMDCN_INLINE void for_chunks(int64_t begin, int64_t end, const F& f) {
  int64_t c = begin;
  const auto run = [&](auto vectors, auto lanes) __attribute__((always_inline)) {
    constexpr int kSize = vectors * lanes;
    for (; c + kSize <= end; c += kSize) f(vectors, lanes, c);
  };
  run(Int<32 / N>{}, Int<N>{});
  run(Int<16 / N>{}, Int<N>{});
  run(Int<1>{}, Int<4>{});
  run(Int<1>{}, Int<1>{});
}

// Loads N elements stored as S, converted to the type they are computed in.
template <int N, typename S>
MMDCN_INLINE Vec<Compute<S>, N> load(const S* from) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    return *reinterpret_cast<const Vec<S, N>*>(from);
  } else {
    using Bits = Vec<uint32_t, N>;
    const Bits raw =
        __builtin_convertvector(*reinterpret_cast<const Vec<uint16_t, N>*>(from), Bits);
    if constexpr (std::is_same_v<S, uint16_t>) {
      return raw;
    } else if constexpr (std::is_same_v<S, BFloat16>) {
      return reinterpret_cast<Vec<float, N>>(raw << 16);
    } else {  // as to_compute(Half)
      const Vec<float, N> scaled =
          reinterpret_cast<Vec<float, N>>((raw & 0x7fffu) << 13) * 0x1p112f;
      const Bits special = reinterpret_cast<Bits>((raw & 0x7c00u) == 0x7c00u) & 0x7f800000u;
      return reinterpret_cast<Vec<float, N>>(reinterpret_cast<Bits>(scaled) | special |
                                             (raw & 0x8000u) << 16);
    }
  }
}

// Stores N elements as S.
template <int N, typename S>
MMDCN_INLINE void store(S* to, const Vec<Compute<S>, N>& value) {
  using Narrow = Vec<uint16_t, N>;
  if constexpr (std::is_same_v<S, Compute<S>>) {
    *reinterpret_cast<Vec<S, N>*>(to) = value;
  } else if constexpr (std::is_same_v<S, uint16_t>) {
    *reinterpret_cast<Narrow*>(to) = __builtin_convertvector(value, Narrow);
  } else if constexpr (std::is_same_v<S, BFloat16>) {  // as from_compute<BFloat16>
    using Bits = Vec<uint32_t, N>;
    const Bits bits = reinterpret_cast<Bits>(value);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits nan = reinterpret_cast<Bits>((bits & 0x7fffffffu) > 0x7f800000u);
    *reinterpret_cast<Narrow*>(to) =
        __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded), Narrow);
  } else {
    for (int i = 0; i < N; ++i) to[i] = from_compute<S>(value[i]);
  }
}

// Adds neighbouring blocks of kBlock lanes: first those of a, then those of b.
template <int kBlock, typename T, int N, size_t... I>
MMDCN_INLINE Vec<T, N> add_blocks(const Vec<T, N>& a, const Vec<T, N>& b,
                                  std::index_sequence<I...>) {
  constexpr auto even = [](int i) {
    const int j = i % (N / 2);
    return j / kBlock * 2 * kBlock + j % kBlock + i / (N / 2) * N;
  };
  return __builtin_shufflevector(a, b, even(I)...) +
         __builtin_shufflevector(a, b, (even(I) + kBlock)...);
}

// Adds to each lane the one whose index differs in the bit kBit.
template <int kBit, typename T, int N, size_t... I>
MMDCN_INLINE Vec<T, N> add_partners(const Vec<T, N>& a, std::index_sequence<I...>) {
  return a + __builtin_shufflevector(a, a, (I ^ kBit)...);
}

// The sums over the lanes of four vectors.
template <typename T, int N>
MMDCN_INLINE Vec<T, 4> sum_lanes_of_four(const Vec<T, N> (&value)[4]) {
  if constexpr (N == 1) {
    return Vec<T, 4>{value[0][0], value[1][0], value[2][0], value[3][0]};
  } else {
    static_assert(N == 4 || N == 8 || N == 16);
    constexpr auto lanes = std::make_index_sequence<N>{};
    const Vec<T, N> ab = add_blocks<N / 2, T, N>(value[0], value[1], lanes);
    const Vec<T, N> cd = add_blocks<N / 2, T, N>(value[2], value[3], lanes);
    Vec<T, N> sum = add_blocks<N / 4, T, N>(ab, cd, lanes);  // a quarter for each of the four
    if constexpr (N > 8) sum = add_partners<2, T, N>(sum, lanes);
    if constexpr (N > 4) sum = add_partners<1, T, N>(sum, lanes);
    constexpr int kStep = N / 4;
    return __builtin_shufflevector(sum, sum, 0, kStep, 2 * kStep, 3 * kStep);
  }
}

}  // namespace mmdcn
