#include "common/aggregation/aggregation.h"

namespace mmdcn {
namespace {

Tensor dcnv3_cpu(const Tensor& input_any, const Tensor& offset_any, const Tensor& mask_any,
                 std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                 std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                 double offset_scale, bool remove_center, bool mask_softmax) {
  const DCNv3Shape s = dcnv3_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset = torch::stable::contiguous(offset_any);
  const Tensor mask = torch::stable::contiguous(mask_any);
  Tensor output =
      torch::stable::empty({s.batch, s.out_h, s.out_w, s.channels}, input.scalar_type());
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    dcnv3_forward_cpu<S>(s, input.const_data_ptr<S>(),
                         dcnv3_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>()),
                         mask_softmax, output.mutable_data_ptr<S>());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> dcnv3_backward_cpu_boxed(
    const Tensor& grad_any, const Tensor& input_any, const Tensor& offset_any,
    const Tensor& mask_any, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
    double offset_scale, bool remove_center, bool mask_softmax, bool need_input,
    bool /*deterministic*/) {
  const DCNv3Shape s = dcnv3_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  check_shape(grad_any, "grad_output", {s.batch, s.out_h, s.out_w, s.channels});
  check_like(grad_any, "grad_output", input_any, "input");
  const Tensor grad_output = torch::stable::contiguous(grad_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset = torch::stable::contiguous(offset_any);
  const Tensor mask = torch::stable::contiguous(mask_any);
  const ScalarType own = input.scalar_type();
  Tensor grad_input = torch::stable::empty({0}, own);
  Tensor grad_offset = torch::stable::empty(offset.sizes(), own);
  Tensor grad_mask = torch::stable::empty(mask.sizes(), own);
  if (need_input) grad_input = torch::stable::empty(input.sizes(), own);
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    dcnv3_backward_cpu<S>(
        s, grad_output.const_data_ptr<S>(), input.const_data_ptr<S>(),
        dcnv3_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>()), mask_softmax,
        need_input ? grad_input.mutable_data_ptr<S>() : nullptr,
        dcnv3_points(s, grad_offset.mutable_data_ptr<S>(), grad_mask.mutable_data_ptr<S>()));
  });
  return {grad_input, grad_offset, grad_mask};
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("dcnv3", TORCH_BOX(&mmdcn::dcnv3_cpu));
  m.impl("dcnv3_backward", TORCH_BOX(&mmdcn::dcnv3_backward_cpu_boxed));
}
