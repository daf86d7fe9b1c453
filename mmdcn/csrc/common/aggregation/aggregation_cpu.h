// The sampling of dcnv3 and dcnv4 on the CPU, of contiguous tensors.
#pragma once

#include "common/aggregation/aggregation.h"

namespace mmdcn::aggregation {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <typename S>
  void forward(const Shape& s, const Tensor& input, const Points<const S>& points,
               const Tensor& output) const;

  // Fills in grad_points, with the layout of points, and returns the gradient of input, empty
  // unless needed.
  template <typename S>
  Tensor backward(const Shape& s, const Tensor& grad_output, const Tensor& input,
                  const Points<const S>& points, const Points<S>& grad_points, bool need_input,
                  bool deterministic) const;
};

}  // namespace mmdcn::aggregation
