#include "dcnv4/dcnv4.h"

namespace mmdcn {

DCNv3Shape dcnv4_shape(const Tensor& input, const Tensor& offset_mask,
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

}  // namespace mmdcn

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def(
      "dcnv4(Tensor input, Tensor offset_mask, int[] kernel_size, int[] stride, int[] padding, "
      "int[] dilation, int groups, float offset_scale, bool remove_center) -> Tensor");
  // An input gradient that is not needed comes back as an empty tensor. deterministic: gradients
  // must be the same bits in every run (on the CPU they always are).
  m.def(
      "dcnv4_backward(Tensor grad_output, Tensor input, Tensor offset_mask, int[] kernel_size, "
      "int[] stride, int[] padding, int[] dilation, int groups, float offset_scale, "
      "bool remove_center, bool need_input, bool deterministic) -> (Tensor, Tensor)");
}
