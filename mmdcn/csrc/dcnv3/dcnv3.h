// dcnv3 on any device: arguments, and the calls of the shared aggregation.
#pragma once

#include <tuple>

#include "common/aggregation/aggregation.h"

namespace mmdcn::dcnv3 {

using aggregation::Shape;

// The sizes that follow from the arguments; raises for those that do not fit.
inline Shape make_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                        const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                        const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                        int64_t groups, double offset_scale, bool remove_center,
                        bool mask_softmax) {
  const Shape s = aggregation::make_shape(input, kernel_size, stride, padding, dilation, groups,
                                          offset_scale, remove_center, mask_softmax);
  check_like(offset, "offset", input, "input");
  check_like(mask, "mask", input, "input");
  const int64_t points = product("offset", {2, groups, s.taps()}) / 2;
  check_shape(offset, "offset", {s.batch, s.out_h, s.out_w, 2 * points});
  check_shape(mask, "mask", {s.batch, s.out_h, s.out_w, points});
  return s;
}

template <typename S>
aggregation::Points<S> make_points(const Shape& s, S* offset, S* mask) {
  return {offset, mask, 2 * s.groups * s.taps(), 2 * s.taps(), s.groups * s.taps(), s.taps()};
}

// Device: aggregation::Cpu or aggregation::Cuda.
template <typename Device>
Tensor forward(const Tensor& input_any, const Tensor& offset_any, const Tensor& mask_any,
               std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
               std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
               double offset_scale, bool remove_center, bool mask_softmax) {
  const Shape s = make_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                             dilation, groups, offset_scale, remove_center, mask_softmax);
  const Device device(input_any);
  const Tensor input = contiguous_tensor(input_any);
  const Tensor offset = contiguous_tensor(offset_any);
  const Tensor mask = contiguous_tensor(mask_any);
  const Tensor output = empty_tensor(input, aggregation::output_size(s));
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const auto points = make_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>());
    device.template forward<S>(s, input, points, output);
  });
  return output;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_output, const Tensor& input_any, const Tensor& offset_any,
    const Tensor& mask_any, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
    double offset_scale, bool remove_center, bool mask_softmax, bool need_input,
    bool deterministic) {
  const Shape s = make_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                             dilation, groups, offset_scale, remove_center, mask_softmax);
  aggregation::check_grad_output(grad_output, s, input_any);
  const Device device(input_any);
  const Tensor input = contiguous_tensor(input_any);
  const Tensor offset = contiguous_tensor(offset_any);
  const Tensor mask = contiguous_tensor(mask_any);
  const Tensor grad_offset = empty_tensor(offset, shape_of(offset));
  const Tensor grad_mask = empty_tensor(mask, shape_of(mask));
  const Tensor grad_input = dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    return device.template backward<S>(
        s, contiguous_tensor(grad_output), input,
        make_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>()),
        make_points(s, grad_offset.mutable_data_ptr<S>(), grad_mask.mutable_data_ptr<S>()),
        need_input, deterministic);
  });
  return {grad_input, grad_offset, grad_mask};
}

}  // namespace mmdcn::dcnv3
