// dcnv4 on any device: arguments, and the calls of the shared aggregation. Offsets and weights come
// in one tensor, group after group.
#pragma once

#include <tuple>

#include "common/aggregation/aggregation.h"

namespace mmdcn::dcnv4 {

using aggregation::Shape;

// The sizes that follow from the arguments; raises for those that do not fit.
inline Shape make_shape(const Tensor& input, const Tensor& offset_mask,
                        const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                        const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                        int64_t groups, double offset_scale, bool remove_center) {
  const Shape s = aggregation::make_shape(input, kernel_size, stride, padding, dilation, groups,
                                          offset_scale, remove_center, false);
  check_like(offset_mask, "offset_mask", input, "input");
  check_dim(offset_mask, "offset_mask", 4);
  const int64_t needed = product("offset_mask", {3, groups, s.taps()});
  MMDCN_CHECK(offset_mask.size(3) >= needed, "offset_mask: expected at least ", needed,
              " channels (3 * groups * taps), got ", offset_mask.size(3));
  check_shape(offset_mask, "offset_mask", {s.batch, s.out_h, s.out_w, offset_mask.size(3)});
  return s;
}

// `channels`: of offset_mask.
template <typename S>
aggregation::Points<S> make_points(const Shape& s, S* offset_mask, int64_t channels) {
  return {offset_mask, offset_mask + 2 * s.taps(), channels, 3 * s.taps(), channels, 3 * s.taps()};
}

// Device: aggregation::Cpu or aggregation::Cuda.
template <typename Device>
Tensor forward(const Tensor& input_any, const Tensor& offset_mask_any,
               std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
               std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
               double offset_scale, bool remove_center) {
  const Shape s = make_shape(input_any, offset_mask_any, kernel_size, stride, padding, dilation,
                             groups, offset_scale, remove_center);
  const Device device(input_any);
  const Tensor input = contiguous_tensor(input_any);
  const Tensor offset_mask = contiguous_tensor(offset_mask_any);
  const Tensor output = empty_tensor(input, aggregation::output_size(s));
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const auto points = make_points(s, offset_mask.const_data_ptr<S>(), offset_mask.size(3));
    device.template forward<S>(s, input, points, output);
  });
  return output;
}

template <typename Device>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input_any,
                                    const Tensor& offset_mask_any, std::vector<int64_t> kernel_size,
                                    std::vector<int64_t> stride, std::vector<int64_t> padding,
                                    std::vector<int64_t> dilation, int64_t groups,
                                    double offset_scale, bool remove_center, bool need_input,
                                    bool deterministic) {
  const Shape s = make_shape(input_any, offset_mask_any, kernel_size, stride, padding, dilation,
                             groups, offset_scale, remove_center);
  aggregation::check_grad_output(grad_output, s, input_any);
  const Device device(input_any);
  const Tensor input = contiguous_tensor(input_any);
  const Tensor offset_mask = contiguous_tensor(offset_mask_any);
  // Zeros for the surplus channels.
  const Tensor grad_offset_mask = zero_tensor(offset_mask, shape_of(offset_mask));
  const Tensor grad_input = dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const int64_t channels = offset_mask.size(3);
    return device.template backward<S>(
        s, contiguous_tensor(grad_output), input,
        make_points(s, offset_mask.const_data_ptr<S>(), channels),
        make_points(s, grad_offset_mask.mutable_data_ptr<S>(), channels), need_input,
        deterministic);
  });
  return {grad_input, grad_offset_mask};
}

}  // namespace mmdcn::dcnv4
