// A small matrix product for tiles that sit in cache.
//
// The library GEMM would repack the sampled columns, which are in cache already, and its result
// may depend on the number of threads. Here the caller owns the threads and the tiles.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/cpu/buffer.h"
#include "common/cpu/threads.h"

namespace mmdcn {

// A panel holds nr columns of B as [depth / kDepthStep][nr][kDepthStep], padded with zeros: with
// bfloat16, products of neighbours along the depth are added in one instruction.
template <typename E>
constexpr int64_t kDepthStep = std::is_same_v<E, BFloat16> ? 2 : 1;

// C[m][n] (+)= A[m][depth] * B[depth][n] with m <= mr and n <= nr, of elements E that are added up
// in Compute<E>. A must be readable up to m = mr; B is a panel.
template <typename E>
struct GemmKernel {
  using Run = void (*)(int64_t depth, const E* a, int64_t lda, const E* panel, Compute<E>* c,
                       int64_t ldc, int64_t m, int64_t n, bool accumulate);
  int64_t mr, nr;
  Run run;
};

// The kernel of the widest instruction set that this processor has; for bfloat16 run is null where
// it has none.
template <typename E>
const GemmKernel<E>& gemm_kernel();

// Calls f with a value of the type in which a matrix stored as S is best multiplied.
template <typename S, typename F>
auto dispatch_element(const F& f) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    if (gemm_kernel<BFloat16>().run) return f(BFloat16{});
  }
  return f(Compute<S>{});
}

// Copies B[depth][n], n <= nr, into a panel.
template <typename E>
inline void pack_panel(const E* b, int64_t ldb, int64_t depth, int64_t n, int64_t nr, E* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    std::memcpy(panel + k * nr, b + k * ldb, n * sizeof(E));
    if (n < nr) std::memset(panel + k * nr + n, 0, (nr - n) * sizeof(E));
  }
}
void pack_panel(const BFloat16* b, int64_t ldb, int64_t depth, int64_t n, int64_t nr,
                BFloat16* panel);

// Puts the nr values of step k into a panel, once for every step.
template <typename E>
inline void put_step(const Compute<E>* values, int64_t nr, int64_t k, E* panel) {
  std::memcpy(panel + k * nr, values, nr * sizeof(E));
}
void put_step(const float* values, int64_t nr, int64_t k, BFloat16* panel);

// Memory for matrices [depth][n], one per group, packed into panels.
template <typename E>
class Panels {
 public:
  Panels(const GemmKernel<E>& kernel, int64_t groups, int64_t depth, int64_t n)
      : nr_(kernel.nr),
        depth_(round_up(depth, kDepthStep<E>)),
        group_size_(round_up(n, nr_) * depth_),
        data_(kDepthStep<E> > 1 ? make_zeros<E>(groups * group_size_)
                                : make_buffer<E>(groups * group_size_)) {}
  const E* operator[](int64_t group) const { return data_.get() + group * group_size_; }
  // Step k of the depth for columns [first, first + nr); first is a multiple of nr. One thread puts
  // kDepthStep steps side by side.
  void put(int64_t group, int64_t k, int64_t first, const Compute<E>* values) {
    put_step(values, nr_, k, data_.get() + group * group_size_ + first * depth_);
  }

 private:
  int64_t nr_, depth_, group_size_;
  Buffer<E> data_;
};

// C[m][n] (+)= A[m][depth] * B[depth][n] with B in ceil(n / nr) panels. A must be readable, C need
// not be, up to the next multiple of mr.
template <typename E>
inline void gemm_panels(const GemmKernel<E>& kernel, int64_t m, int64_t n, int64_t depth,
                        const E* a, int64_t lda, const E* panels, Compute<E>* c, int64_t ldc,
                        bool accumulate) {
  for (int64_t j = 0; j < n; j += kernel.nr) {
    const E* panel = panels + j * round_up(depth, kDepthStep<E>);
    for (int64_t i = 0; i < m; i += kernel.mr) {
      kernel.run(depth, a + i * lda, lda, panel, c + i * ldc + j, ldc, std::min(kernel.mr, m - i),
                 std::min(kernel.nr, n - j), accumulate);
    }
  }
}

}  // namespace mmdcn
