#include "common/cpu/gemm.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "common/cpu/vec.h"

namespace mmdcn {
namespace {

// Stores kMr rows of two vectors, those that C has.
template <int kMr, typename T, typename Register>
MMDCN_INLINE void store_tile(const Register (&acc)[kMr][2], T* c, int64_t ldc, int64_t rows,
                             int64_t cols, bool accumulate) {
  constexpr int kWidth = sizeof(Register) / sizeof(T);
  using Unaligned = Vec<T, kWidth>;
  T row[2 * kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < kMr; ++r) {
    if (r < rows) {
      T* out = c + r * ldc;
      if (cols == 2 * kWidth) {
        Unaligned* v = reinterpret_cast<Unaligned*>(out);
        if (accumulate) {
          v[0] += acc[r][0];
          v[1] += acc[r][1];
        } else {
          v[0] = acc[r][0];
          v[1] = acc[r][1];
        }
      } else {
        std::memcpy(row, &acc[r][0], sizeof(Register));
        std::memcpy(row + kWidth, &acc[r][1], sizeof(Register));
        for (int64_t j = 0; j < cols; ++j) out[j] = accumulate ? out[j] + row[j] : row[j];
      }
    }
  }
}

// kMr rows of C, two vectors of kWidth columns each, stay in registers over the whole depth.
template <typename T, int kWidth, int kMr>
MMDCN_INLINE void micro_kernel(int64_t depth, const T* a, int64_t lda, const T* panel, T* c,
                               int64_t ldc, int64_t rows, int64_t cols, bool accumulate) {
  using Vec = Vec<T, kWidth>;
  Vec acc[kMr][2] = {};
  for (int64_t k = 0; k < depth; ++k, panel += 2 * kWidth) {
    const Vec b0 = *reinterpret_cast<const Vec*>(panel);
    const Vec b1 = *reinterpret_cast<const Vec*>(panel + kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < kMr; ++r) {
      const T s = a[r * lda + k];
      acc[r][0] += s * b0;
      acc[r][1] += s * b1;
    }
  }
  store_tile<kMr>(acc, c, ldc, rows, cols, accumulate);
}

#define MMDCN_MICRO(name, target, bytes, mr)                                                      \
  template <typename T>                                                                           \
  target void name(int64_t depth, const T* a, int64_t lda, const T* panel, T* c, int64_t ldc,     \
                   int64_t rows, int64_t cols, bool accumulate) {                                 \
    micro_kernel<T, bytes / sizeof(T), mr>(depth, a, lda, panel, c, ldc, rows, cols, accumulate); \
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
                                                     const BFloat16* panel, __m512 (&acc)[kMr][2]) {
  const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel);
  const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + 32);
#pragma GCC unroll 16
  for (int r = 0; r < kMr; ++r) {
    int32_t pair = 0;
    std::memcpy(&pair, a + r * lda, kBytes);
    const __m512bh s = (__m512bh)_mm512_set1_epi32(pair);
    acc[r][0] = _mm512_dpbf16_ps(acc[r][0], s, b0);
    acc[r][1] = _mm512_dpbf16_ps(acc[r][1], s, b1);
  }
}

MMDCN_BFLOAT16_TARGET void micro_bfloat16(int64_t depth, const BFloat16* a, int64_t lda,
                                          const BFloat16* panel, float* c, int64_t ldc,
                                          int64_t rows, int64_t cols, bool accumulate) {
  constexpr int kMr = 12;
  __m512 acc[kMr][2] = {};
  int64_t k = 0;
  for (; k + 2 <= depth; k += 2) add_products<4>(a + k, lda, panel + 32 * k, acc);
  if (k < depth) add_products<2>(a + k, lda, panel + 32 * k, acc);
  store_tile<kMr>(acc, c, ldc, rows, cols, accumulate);
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

MMDCN_CLONES void pack_panel(const BFloat16* b, int64_t ldb, int64_t depth, int64_t cols,
                             int64_t nr, BFloat16* panel) {
  constexpr int kLanes = 16;
  using Single = Vec<uint16_t, kLanes>;
  using Pair = Vec<uint32_t, kLanes>;
  const auto widen = [](const BFloat16* from) __attribute__((always_inline)) {
    return __builtin_convertvector(*reinterpret_cast<const Single*>(from), Pair);
  };
  const BFloat16 zero(0.0f);
  for (int64_t k = 0; k < depth; k += 2, b += 2 * ldb, panel += 2 * nr) {
    const bool two = k + 1 < depth;
    int64_t j = 0;
    for (; j + kLanes <= cols; j += kLanes) {
      Pair pair = widen(b + j);
      if (two) pair |= widen(b + ldb + j) << 16;
      *reinterpret_cast<Pair*>(panel + 2 * j) = pair;
    }
    for (; j < nr; ++j) {
      panel[2 * j] = j < cols ? b[j] : zero;
      panel[2 * j + 1] = j < cols && two ? b[ldb + j] : zero;
    }
  }
}

MMDCN_CLONES void put_row(const float* row, int64_t nr, int64_t k, BFloat16* panel) {
  BFloat16* const to = panel + k / 2 * 2 * nr + k % 2;
  for (int64_t j = 0; j < nr; ++j) to[2 * j] = from_compute<BFloat16>(row[j]);
}

}  // namespace mmdcn
