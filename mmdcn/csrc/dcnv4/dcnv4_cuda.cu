#include "common/aggregation/aggregation_cuda.h"
#include "dcnv4/dcnv4.h"

namespace mmdcn {
namespace {

Tensor dcnv4_cuda(const Tensor& input_any, const Tensor& offset_mask_any,
                  std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                  std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                  double offset_scale, bool remove_center) {
  const DCNv3Shape s = dcnv4_shape(input_any, offset_mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  const CudaDevice device(input_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset_mask = torch::stable::contiguous(offset_mask_any);
  Tensor output = torch::stable::new_empty(input, {s.batch, s.out_h, s.out_w, s.channels});
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    dcnv3_forward_cuda<S>(device, s, input.const_data_ptr<S>(),
                          dcnv4_points(s, offset_mask.const_data_ptr<S>(), offset_mask.size(3)),
                          false, output.mutable_data_ptr<S>());
  });
  return output;
}

std::tuple<Tensor, Tensor> dcnv4_backward_cuda(
    const Tensor& grad_any, const Tensor& input_any, const Tensor& offset_mask_any,
    std::vector<int64_t> kernel_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
    std::vector<int64_t> dilation, int64_t groups, double offset_scale, bool remove_center,
    bool need_input, bool deterministic) {
  const DCNv3Shape s = dcnv4_shape(input_any, offset_mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  check_shape(grad_any, "grad_output", {s.batch, s.out_h, s.out_w, s.channels});
  check_like(grad_any, "grad_output", input_any, "input");
  const CudaDevice device(input_any);
  const Tensor grad_output = torch::stable::contiguous(grad_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset_mask = torch::stable::contiguous(offset_mask_any);
  const ScalarType own = input.scalar_type();
  const Tensor grad_input = zeros_if(need_input, input, compute_scalar_type(own));
  // Zeros for the surplus channels.
  const Tensor grad_offset_mask = torch::stable::new_zeros(offset_mask, offset_mask.sizes());
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    const int64_t channels = offset_mask.size(3);
    dcnv3_backward_cuda<S>(
        device, s, grad_output.const_data_ptr<S>(), input.const_data_ptr<S>(),
        dcnv4_points(s, offset_mask.const_data_ptr<S>(), channels), false, grad_input,
        dcnv4_points(s, grad_offset_mask.mutable_data_ptr<S>(), channels), deterministic);
  });
  return {cast(grad_input, own), grad_offset_mask};
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("dcnv4", TORCH_BOX(&mmdcn::dcnv4_cuda));
  m.impl("dcnv4_backward", TORCH_BOX(&mmdcn::dcnv4_backward_cuda));
}
