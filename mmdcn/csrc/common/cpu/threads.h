// Shares work out to threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <exception>
#include <mutex>

namespace mmdcn {

// Calls f(from, to) for parts of [begin, end) of at least `grain` from several threads. What one of
// them throws, which torch would lose, is thrown again.
template <typename F>
inline void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  std::exception_ptr error;
  std::mutex mutex;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    try {
      f(from, to);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

// Calls f(i) for i in [0, count) from several threads. Work is cut into items by the caller,
// independently of the number of threads, so that results are too.
template <typename F>
inline void parallel_items(int64_t count, const F& f) {
  if (count == 1) return f(int64_t{0});
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace mmdcn
