#include "common/cpu/gemm.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "common/cpu/vec.h"

namespace mmdcn {
namespace {

// Stores a tile of kMr x 2 N elements, those that C has.
template <int N, int kMr, typename T>
MMDCN_INLINE void store_tile(const Vec<T, N> (&tile)[kMr][2], T* c, int64_t ldc, int64_t m,
                             int64_t n, bool accumulate) {
  T values[2 * N];
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
    if (i < m) {
      T* out = c + i * ldc;
      if (n == 2 * N) {
        if (accumulate) {
          store<N>(out, load<N>(out) + tile[i][0]);
          store<N>(out + N, load<N>(out + N) + tile[i][1]);
        } else {
          store<N>(out, tile[i][0]);
          store<N>(out + N, tile[i][1]);
        }
      } else {
        store<N>(values, tile[i][0]);
        store<N>(values + N, tile[i][1]);
        for (int64_t j = 0; j < n; ++j) out[j] = accumulate ? out[j] + values[j] : values[j];
      }
    }
  }
}

// A tile of kMr rows and two vectors of columns stays in registers over the whole depth.
template <int kBytes, int kMr, typename T>
MMDCN_INLINE void micro_kernel(int64_t depth, const T* a, int64_t lda, const T* panel, T* c,
                               int64_t ldc, int64_t m, int64_t n, bool accumulate) {
  constexpr int N = kLanes<T, kBytes>;
  Vec<T, N> tile[kMr][2] = {};
  for (int64_t k = 0; k < depth; ++k, panel += 2 * N) {
    const Vec<T, N> b0 = load<N>(panel), b1 = load<N>(panel + N);
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
      const T s = a[i * lda + k];
      tile[i][0] += s * b0;
      tile[i][1] += s * b1;
    }
  }
  store_tile<N, kMr, T>(tile, c, ldc, m, n, accumulate);
}

#define MMDCN_MICRO(name, target, bytes, mr)                                                  \
  template <typename T>                                                                       \
  target void name(int64_t depth, const T* a, int64_t lda, const T* panel, T* c, int64_t ldc, \
                   int64_t m, int64_t n, bool accumulate) {                                   \
    micro_kernel<bytes, mr>(depth, a, lda, panel, c, ldc, m, n, accumulate);                  \
  }

// Registers: 12 x 2 + 3 of 32 with AVX-512, 6 x 2 + 3 of 16 with AVX2 and below.
#if defined(__x86_64__) && defined(__GNUC__)
MMDCN_MICRO(micro_v4, __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma"))), 64, 12)
MMDCN_MICRO(micro_v3, __attribute__((target("avx2,fma"))), 32, 6)
#endif
MMDCN_MICRO(micro_base, , 16, 6)

#if defined(__x86_64__) && defined(__GNUC__)
#define MMDCN_BFLOAT16_TARGET \
  __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,fma")))

// Two steps of the depth, or one, of 2 bytes, at its end.
template <int kBytes, int kMr>
MMDCN_BFLOAT16_TARGET MMDCN_INLINE void add_products(const BFloat16* a, int64_t lda,
                                                     const BFloat16* panel,
                                                     Vec<float, 16> (&tile)[kMr][2]) {
  const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel);
  const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + 32);
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
    int32_t pair = 0;
    std::memcpy(&pair, a + i * lda, kBytes);
    const __m512bh s = (__m512bh)_mm512_set1_epi32(pair);
    tile[i][0] = _mm512_dpbf16_ps(tile[i][0], s, b0);
    tile[i][1] = _mm512_dpbf16_ps(tile[i][1], s, b1);
  }
}

MMDCN_BFLOAT16_TARGET void micro_bfloat16(int64_t depth, const BFloat16* a, int64_t lda,
                                          const BFloat16* panel, float* c, int64_t ldc, int64_t m,
                                          int64_t n, bool accumulate) {
  constexpr int kMr = 12;
  Vec<float, 16> tile[kMr][2] = {};
  int64_t k = 0;
  for (; k + 2 <= depth; k += 2) add_products<4>(a + k, lda, panel + 32 * k, tile);
  if (k < depth) add_products<2>(a + k, lda, panel + 32 * k, tile);
  store_tile<16, kMr, float>(tile, c, ldc, m, n, accumulate);
}
#endif

template <typename T>
GemmKernel<T> choose() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    return {12, 128 / sizeof(T), micro_v4<T>};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {6, 64 / sizeof(T), micro_v3<T>};
  }
#endif
  return {6, 32 / sizeof(T), micro_base<T>};
}

template <>
GemmKernel<BFloat16> choose() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512bf16")) {
    return {12, 32, micro_bfloat16};
  }
#endif
  return {1, 1, nullptr};
}

}  // namespace

template <typename E>
const GemmKernel<E>& gemm_kernel() {
  static const GemmKernel<E> kernel = choose<E>();
  return kernel;
}

template const GemmKernel<float>& gemm_kernel<float>();
template const GemmKernel<double>& gemm_kernel<double>();
template const GemmKernel<BFloat16>& gemm_kernel<BFloat16>();

MMDCN_CLONES void pack_panel(const BFloat16* b, int64_t ldb, int64_t depth, int64_t n, int64_t nr,
                             BFloat16* panel) {
  constexpr int N = kLanes<uint16_t, kWideBytes>;
  const uint16_t* from = reinterpret_cast<const uint16_t*>(b);
  uint16_t* to = reinterpret_cast<uint16_t*>(panel);
  for (int64_t k = 0; k < depth; k += 2, from += 2 * ldb, to += 2 * nr) {
    const bool two = k + 1 < depth;
    int64_t j = 0;
    for (; j + N <= n; j += N) {
      Vec<uint32_t, N> pair = load<N>(from + j);
      if (two) pair |= load<N>(from + ldb + j) << 16;
      store<N>(reinterpret_cast<uint32_t*>(to + 2 * j), pair);
    }
    for (; j < nr; ++j) {
      to[2 * j] = j < n ? from[j] : 0;
      to[2 * j + 1] = j < n && two ? from[ldb + j] : 0;
    }
  }
}

MMDCN_CLONES void put_step(const float* values, int64_t nr, int64_t k, BFloat16* panel) {
  BFloat16* const to = panel + k / 2 * 2 * nr + k % 2;
  for (int64_t j = 0; j < nr; ++j) to[2 * j] = from_compute<BFloat16>(values[j]);
}

}  // namespace mmdcn
