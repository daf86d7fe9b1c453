// Gradients to which many points add. Floating-point atomics are fast, but the order of the
// additions, and with it the last bits, differ from run to run. Under
// torch.use_deterministic_algorithms the summands are converted to 64-bit integers instead, with a
// scale that follows from bounds on them, found on the device.
#pragma once

#include <initializer_list>

#include "common/cuda/gradient_sum.cuh"
#include "common/cuda/host.h"

namespace mmdcn {

// *p.bits becomes at least the largest magnitude in the data.
template <typename S>
void max_magnitude(const CudaDevice& device, const MaxMagnitudeParams<S>& p);

template <typename T>
class GradientAccumulator {
 public:
  // Adds to `sum`, a contiguous tensor of T, or nothing if it is empty.
  GradientAccumulator(const CudaDevice& device, const Tensor& sum, bool deterministic);

  // Calls add(target) for kernels that add at most `count` summands to any element. A summand is a
  // product of one value of each of the bounding arrays and of factors of at most 1.
  template <typename S, typename F>
  void run(std::initializer_list<MaxMagnitudeParams<S>> bounding, int64_t count, const F& add) {
    if (fixed()) {
      torch::stable::zero_(bounds_);
      unsigned long long* bound = data(bounds_);
      for (MaxMagnitudeParams<S> p : bounding) {
        p.bits = bound++;
        max_magnitude(device_, p);
      }
      set_scale(static_cast<int32_t>(bounding.size()), count);
    }
    add(target());
    if (fixed()) collect();
  }

 private:
  bool fixed() const { return fixed_.defined(); }
  GradientSum<T> target() const;
  void set_scale(int32_t bounds, int64_t count);
  void collect();
  static unsigned long long* data(const Tensor& t) {
    return reinterpret_cast<unsigned long long*>(t.mutable_data_ptr<int64_t>());
  }

  const CudaDevice& device_;
  Tensor sum_, fixed_, bounds_, scale_;
};

}  // namespace mmdcn
