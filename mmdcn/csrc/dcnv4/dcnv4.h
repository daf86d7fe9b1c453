// Arguments of dcnv4, which samples as dcnv3 does; offsets and weights come in one tensor, group
// after group.
#pragma once

#include "common/aggregation/aggregation.h"

namespace mmdcn {

// The sizes that follow from the arguments; raises for those that do not fit.
inline DCNv3Shape dcnv4_shape(const Tensor& input, const Tensor& offset_mask,
                              const std::vector<int64_t>& kernel_size,
                              const std::vector<int64_t>& stride,
                              const std::vector<int64_t>& padding,
                              const std::vector<int64_t>& dilation, int64_t groups,
                              double offset_scale, bool remove_center) {
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

// `channels`: of offset_mask.
template <typename S>
DCNv3Points<S> dcnv4_points(const DCNv3Shape& s, S* offset_mask, int64_t channels) {
  return {offset_mask, offset_mask + 2 * s.taps(), channels, 3 * s.taps(), channels, 3 * s.taps()};
}

}  // namespace mmdcn
