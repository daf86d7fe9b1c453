#include "common/aggregation/aggregation_cuda.h"

namespace mmdcn {
namespace {

Tensor dcnv3_cuda(const Tensor& input_any, const Tensor& offset_any, const Tensor& mask_any,
                  std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                  std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                  double offset_scale, bool remove_center, bool mask_softmax) {
  const DCNv3Shape s = dcnv3_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  const CudaDevice device(input_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset = torch::stable::contiguous(offset_any);
  const Tensor mask = torch::stable::contiguous(mask_any);
  Tensor output = torch::stable::new_empty(input, {s.batch, s.out_h, s.out_w, s.channels});
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    dcnv3_forward_cuda<S>(device, s, input.const_data_ptr<S>(),
                          dcnv3_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>()),
                          mask_softmax, output.mutable_data_ptr<S>());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> dcnv3_backward_cuda_boxed(
    const Tensor& grad_any, const Tensor& input_any, const Tensor& offset_any,
    const Tensor& mask_any, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
    double offset_scale, bool remove_center, bool mask_softmax, bool need_input,
    bool deterministic) {
  const DCNv3Shape s = dcnv3_shape(input_any, offset_any, mask_any, kernel_size, stride, padding,
                                   dilation, groups, offset_scale, remove_center);
  check_shape(grad_any, "grad_output", {s.batch, s.out_h, s.out_w, s.channels});
  check_like(grad_any, "grad_output", input_any, "input");
  const CudaDevice device(input_any);
  const Tensor grad_output = torch::stable::contiguous(grad_any);
  const Tensor input = torch::stable::contiguous(input_any);
  const Tensor offset = torch::stable::contiguous(offset_any);
  const Tensor mask = torch::stable::contiguous(mask_any);
  const ScalarType own = input.scalar_type();
  const Tensor grad_input = zeros_if(need_input, input, compute_scalar_type(own));
  const Tensor grad_offset = torch::stable::new_empty(offset, offset.sizes());
  const Tensor grad_mask = torch::stable::new_empty(mask, mask.sizes());
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    dcnv3_backward_cuda<S>(
        device, s, grad_output.const_data_ptr<S>(), input.const_data_ptr<S>(),
        dcnv3_points(s, offset.const_data_ptr<S>(), mask.const_data_ptr<S>()), mask_softmax,
        grad_input,
        dcnv3_points(s, grad_offset.mutable_data_ptr<S>(), grad_mask.mutable_data_ptr<S>()),
        deterministic);
  });
  return {cast(grad_input, own), grad_offset, grad_mask};
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("dcnv3", TORCH_BOX(&mmdcn::dcnv3_cuda));
  m.impl("dcnv3_backward", TORCH_BOX(&mmdcn::dcnv3_backward_cuda_boxed));
}
