// dcnv4 samples as dcnv3 does; offsets and weights come in one tensor, group after group.
#include "dcnv3/dcnv3.h"

namespace mmdcn {
namespace {

DCNv3Shape check(const Tensor& input, const Tensor& offset_mask,
                 const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                 const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                 int64_t groups, double offset_scale, bool remove_center) {
  const DCNv3Shape s = dcnv3_shape(input, kernel_size, stride, padding, dilation, groups,
                                   offset_scale, remove_center);
  check_like(offset_mask, "offset_mask", input, "input");
  check_dim(offset_mask, "offset_mask", 4);
  const int64_t needed = 3 * groups * s.taps();
  STD_TORCH_CHECK(offset_mask.size(3) >= needed, "offset_mask: expected at least ", needed,
                  " channels (3 * groups * taps), got ", offset_mask.size(3));
  check_shape(offset_mask, "offset_mask", {s.batch, s.out_h, s.out_w, offset_mask.size(3)});
  return s;
}

template <typename S>
DCNv3Points<S> layout(const DCNv3Shape& s, S* offset_mask, int64_t channels) {
  return {offset_mask, offset_mask + 2 * s.taps(), channels, 3 * s.taps(), channels, 3 * s.taps()};
}

Tensor dcnv4_cpu(const Tensor& input_any, const Tensor& offset_mask_any,
                 std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                 std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                 double offset_scale, bool remove_center) {
  const DCNv3Shape s = check(input_any, offset_mask_any, kernel_size, stride, padding, dilation,
                             groups, offset_scale, remove_center);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset_mask = torch::stable::contiguous(offset_mask_any);
  Tensor output = torch::stable::empty({s.batch, s.out_h, s.out_w, s.channels}, input.scalar_type());
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    dcnv3_forward_cpu<S>(s, input.const_data_ptr<S>(),
                         layout(s, offset_mask.const_data_ptr<S>(), offset_mask.size(3)), false,
                         output.mutable_data_ptr<S>());
  });
  return output;
}

std::tuple<Tensor, Tensor> dcnv4_backward_cpu(
    const Tensor& grad_any, const Tensor& input_any, const Tensor& offset_mask_any,
    std::vector<int64_t> kernel_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
    std::vector<int64_t> dilation, int64_t groups, double offset_scale, bool remove_center,
    bool need_input) {
  const DCNv3Shape s = check(input_any, offset_mask_any, kernel_size, stride, padding, dilation,
                             groups, offset_scale, remove_center);
  check_shape(grad_any, "grad_output", {s.batch, s.out_h, s.out_w, s.channels});
  check_like(grad_any, "grad_output", input_any, "input");
  const Tensor grad_output = torch::stable::contiguous(grad_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset_mask = torch::stable::contiguous(offset_mask_any);
  const ScalarType own = input.scalar_type();
  Tensor grad_input = torch::stable::empty({0}, own);
  Tensor grad_offset_mask = torch::stable::empty(offset_mask.sizes(), own);
  torch::stable::zero_(grad_offset_mask);  // the surplus channels
  if (need_input) grad_input = torch::stable::empty(input.sizes(), compute_scalar_type(own));
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    const int64_t channels = offset_mask.size(3);
    dcnv3_backward_cpu<S>(s, grad_output.const_data_ptr<S>(), input.const_data_ptr<S>(),
                          layout(s, offset_mask.const_data_ptr<S>(), channels), false,
                          need_input ? &grad_input : nullptr,
                          layout(s, grad_offset_mask.mutable_data_ptr<S>(), channels));
  });
  return {cast(grad_input, own), grad_offset_mask};
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("dcnv4", TORCH_BOX(&mmdcn::dcnv4_cpu));
  m.impl("dcnv4_backward", TORCH_BOX(&mmdcn::dcnv4_backward_cpu));
}
