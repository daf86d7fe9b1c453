#include "common/gemm.h"

namespace mmdcn {
namespace {

// kMr rows of C, two vectors of kWidth columns each, stay in registers over the whole depth.
template <typename T, int kWidth, int kMr>
MMDCN_INLINE void micro_kernel(int64_t depth, const T* a, int64_t lda, const T* panel, T* c,
                               int64_t ldc, int64_t rows, int64_t cols, bool accumulate) {
  typedef T Vec __attribute__((vector_size(kWidth * sizeof(T)), aligned(sizeof(T)), may_alias));
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
  T row[2 * kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < kMr; ++r) {
    if (r < rows) {
      T* out = c + r * ldc;
      if (cols == 2 * kWidth) {
        Vec* v = reinterpret_cast<Vec*>(out);
        if (accumulate) {
          v[0] += acc[r][0];
          v[1] += acc[r][1];
        } else {
          v[0] = acc[r][0];
          v[1] = acc[r][1];
        }
      } else {
        std::memcpy(row, &acc[r][0], sizeof(Vec));
        std::memcpy(row + kWidth, &acc[r][1], sizeof(Vec));
        for (int64_t j = 0; j < cols; ++j) out[j] = accumulate ? out[j] + row[j] : row[j];
      }
    }
  }
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

}  // namespace

template <typename T>
const GemmKernel<T>& gemm_kernel() {
  static const GemmKernel<T> kernel = choose<T>();
  return kernel;
}

template const GemmKernel<float>& gemm_kernel<float>();
template const GemmKernel<double>& gemm_kernel<double>();

}  // namespace mmdcn
