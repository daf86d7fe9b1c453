// Shares work out to threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace mmdcn {

// Calls f(i) for i in [0, count) from several threads. Work is cut into items by the caller,
// independently of the number of threads, so that results are too.
template <typename F>
inline void parallel_items(int64_t count, const F& f) {
  if (count == 1) return f(int64_t{0});
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace mmdcn
