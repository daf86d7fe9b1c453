// RoI pooling on the CPU by plans, shared by the RoI operators.
#pragma once

#include <vector>

#include "common/roi_pool/plan_cpu.h"

namespace mmdcn::roi_pool {

template <typename T>
struct Gradients {
  Tensor input;  // empty unless wanted
  // [RoI][offset group][bin][3] unless empty: the gradients of the bin's mask, and of its position
  // along y and x for a mask of 1.
  std::vector<T> bins;
};

// T is the type of computation; input and output have the storage type of `input`.
template <typename T>
void forward(const Shape& s, const Tensor& input, const std::vector<Plan<T>>& plans,
             const Tensor& output);

// Calls make_plans() only when there is memory for the output: the plans need much, too.
template <typename T, typename F>
Tensor forward(const Shape& s, const Tensor& input, const F& make_plans) {
  const Tensor output = empty_tensor(input, {s.rois, s.out_channels, s.out_h, s.out_w});
  if (s.rois > 0) forward<T>(s, input, make_plans(), output);
  return output;
}

template <typename T>
Gradients<T> backward(const Shape& s, const Tensor& grad_output, const Tensor& input,
                      const std::vector<Plan<T>>& plans, bool need_input, bool need_bins);

// Calls f with a value of the type of computation.
template <typename F>
auto dispatch_compute(ScalarType type, const F& f) {
  return type == ScalarType::Double ? f(double{}) : f(float{});
}

// Operators that take the mean over boxes of whole pixels. Op::make_shape checks the arguments,
// Op::range gives the pixels of a bin along one axis.
template <typename Op>
Tensor box_forward(const Tensor& input, const Tensor& rois, std::vector<int64_t> output_size,
                   double spatial_scale) {
  const Shape s = Op::make_shape(input, rois, output_size, spatial_scale);
  return dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    return forward<T>(s, input, [&] { return make_box_plans<Op, T>(s, rois, spatial_scale); });
  });
}

template <typename Op>
Tensor box_backward(const Tensor& grad_output, const Tensor& input, const Tensor& rois,
                    std::vector<int64_t> output_size, double spatial_scale,
                    bool /*deterministic*/) {
  const Shape s = Op::make_shape(input, rois, output_size, spatial_scale);
  check_grad_output(grad_output, s, input);
  return dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto plans = make_box_plans<Op, T>(s, rois, spatial_scale);
    return backward<T>(s, grad_output, input, plans, true, false).input;
  });
}

}  // namespace mmdcn::roi_pool
