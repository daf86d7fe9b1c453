#include "common/cpu/transpose.h"

#include "common/cpu/vec.h"

namespace mmdcn {
namespace {

// Square tiles in registers.
template <typename T>
MMDCN_INLINE void transpose_registers(
    Vec<T, 8> (&a)[8]) {  // pairs of rows, then quads, then halves
  Vec<T, 8> b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Vec<T, 8> c[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    c[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    c[i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    c[i + 2] = __builtin_shufflevector(b[i + 1], b[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    c[i + 3] = __builtin_shufflevector(b[i + 1], b[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = __builtin_shufflevector(c[i], c[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    a[i + 4] = __builtin_shufflevector(c[i], c[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

template <typename T>
MMDCN_INLINE void transpose_registers(Vec<T, 4> (&a)[4]) {
  Vec<T, 4> b[4];
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 4, 2, 6);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 5, 3, 7);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 4, 5);
    a[i + 2] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 6, 7);
  }
}

template <int N, typename From, typename To>
MMDCN_INLINE void transpose_tile(const From* from, int64_t ld_from, To* to, int64_t ld_to) {
  Vec<Compute<From>, N> tile[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) tile[i] = load<N>(from + i * ld_from);
  transpose_registers<Compute<From>>(tile);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) store<N>(to + i * ld_to, tile[i]);
}

template <int kBytes, typename From, typename To>
MMDCN_INLINE void transpose_impl(const From* __restrict from, int64_t ld_from, To* __restrict to,
                                 int64_t ld_to, int64_t m, int64_t n) {
  constexpr int N = kLanes<From, kBytes>;
  constexpr int64_t kLine = 16;  // read whole cache lines before the next rows displace them
  const int64_t whole_m = m / N * N, whole_n = n / N * N;
  for (int64_t line = 0; line < whole_n; line += kLine) {
    const int64_t end = std::min(line + kLine, whole_n);
    for (int64_t i = 0; i < whole_m; i += N) {
      for (int64_t j = line; j < end; j += N) {
        transpose_tile<N>(from + i * ld_from + j, ld_from, to + j * ld_to + i, ld_to);
      }
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = j < whole_n ? whole_m : 0; i < m; ++i) {
      to[j * ld_to + i] = convert<To>(from[i * ld_from + j]);
    }
  }
}

}  // namespace

#define MMDCN_DEFINE_TRANSPOSE(From, To)                                                      \
  MMDCN_CLONES void transpose_block(const From* from, int64_t ld_from, To* to, int64_t ld_to, \
                                    int64_t m, int64_t n) {                                   \
    transpose_impl<kNarrowBytes>(from, ld_from, to, ld_to, m, n);                             \
  }
MMDCN_DEFINE_TRANSPOSE(double, double)
MMDCN_DEFINE_TRANSPOSE(float, float)
MMDCN_DEFINE_TRANSPOSE(float, BFloat16)
MMDCN_DEFINE_TRANSPOSE(float, Half)
MMDCN_DEFINE_TRANSPOSE(BFloat16, float)
MMDCN_DEFINE_TRANSPOSE(Half, float)

// Of 16 bits without a conversion.
#define MMDCN_DEFINE_TRANSPOSE_BITS(S)                                                    \
  MMDCN_CLONES void transpose_block(const S* from, int64_t ld_from, S* to, int64_t ld_to, \
                                    int64_t m, int64_t n) {                               \
    transpose_impl<kNarrowBytes>(reinterpret_cast<const uint16_t*>(from), ld_from,        \
                                 reinterpret_cast<uint16_t*>(to), ld_to, m, n);           \
  }
MMDCN_DEFINE_TRANSPOSE_BITS(BFloat16)
MMDCN_DEFINE_TRANSPOSE_BITS(Half)

}  // namespace mmdcn
