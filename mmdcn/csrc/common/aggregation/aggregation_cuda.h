// The sampling of dcnv3 and dcnv4 on the GPU, of contiguous tensors.
#pragma once

#include "common/aggregation/aggregation.h"
#include "common/cuda/host.h"

namespace mmdcn::aggregation {

class Cuda {
 public:
  explicit Cuda(const Tensor& input) : device_(input) {}

  template <typename S>
  void forward(const Shape& s, const Tensor& input, const Points<const S>& points,
               const Tensor& output) const;

  // Fills in grad_points, with the layout of points, and returns the gradient of input, empty
  // unless needed.
  template <typename S>
  Tensor backward(const Shape& s, const Tensor& grad_output, const Tensor& input,
                  const Points<const S>& points, const Points<S>& grad_points, bool need_input,
                  bool deterministic) const;

 private:
  CudaDevice device_;
};

}  // namespace mmdcn::aggregation
