// A small matrix product for tiles that sit in cache.
//
// The library GEMM would repack the sampled columns, which are in cache already, and its result
// may depend on the number of threads. Here the caller owns the threads and the tiles.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/cpu.h"

namespace mmdcn {

// C[rows][cols] (+)= A[rows][depth] * B[depth][cols] with rows <= mr, cols <= nr.
// A must be readable for mr rows; B is a panel packed as [depth][nr] (see pack_panel).
template <typename T>
struct GemmKernel {
  using Run = void (*)(int64_t depth, const T* a, int64_t lda, const T* panel, T* c, int64_t ldc,
                       int64_t rows, int64_t cols, bool accumulate);
  int64_t mr, nr;
  Run run;
};

// The kernel of the widest instruction set that this processor has.
template <typename T>
const GemmKernel<T>& gemm_kernel();

// Copies `cols` columns of a row-major B into a panel, zero-filled up to nr columns.
template <typename T>
inline void pack_panel(const T* b, int64_t ldb, int64_t depth, int64_t cols, int64_t nr, T* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    std::memcpy(panel + k * nr, b + k * ldb, cols * sizeof(T));
    if (cols < nr) std::memset(panel + k * nr + cols, 0, (nr - cols) * sizeof(T));
  }
}

// Memory for matrices [depth][cols], one per group, packed into panels.
template <typename T>
class Panels {
 public:
  Panels(const GemmKernel<T>& kernel, int64_t groups, int64_t depth, int64_t cols)
      : nr_(kernel.nr),
        depth_(depth),
        group_size_(round_up(cols, nr_) * depth),
        data_(make_buffer<T>(groups * group_size_)) {}
  const T* operator[](int64_t group) const { return data_.get() + group * group_size_; }
  // Where columns `col` to `col` + nr of a row go; col is a multiple of nr.
  T* row(int64_t group, int64_t k, int64_t col) {
    return data_.get() + group * group_size_ + col * depth_ + k * nr_;
  }

 private:
  int64_t nr_, depth_, group_size_;
  Buffer<T> data_;
};

// C[rows][cols] (+)= A * B with B already packed into ceil(cols / nr) panels. A must be readable,
// C need not be, up to the next multiple of mr rows.
template <typename T>
inline void gemm_panels(const GemmKernel<T>& kernel, int64_t rows, int64_t cols, int64_t depth,
                        const T* a, int64_t lda, const T* panels, T* c, int64_t ldc,
                        bool accumulate) {
  for (int64_t j = 0; j < cols; j += kernel.nr) {
    const T* panel = panels + j * depth;
    for (int64_t i = 0; i < rows; i += kernel.mr) {
      kernel.run(depth, a + i * lda, lda, panel, c + i * ldc + j, ldc,
                 std::min(kernel.mr, rows - i), std::min(kernel.nr, cols - j), accumulate);
    }
  }
}

}  // namespace mmdcn
