// Arguments of dcnv4, which samples as dcnv3 does; offsets and weights come in one tensor, group
// after group.
#pragma once

#include "dcnv3/dcnv3.h"

namespace mmdcn {

// The sizes that follow from the arguments; raises for those that do not fit.
DCNv3Shape dcnv4_shape(const Tensor& input, const Tensor& offset_mask,
                       const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                       const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                       int64_t groups, double offset_scale, bool remove_center);

// `channels`: of offset_mask.
template <typename S>
DCNv3Points<S> dcnv4_points(const DCNv3Shape& s, S* offset_mask, int64_t channels) {
  return {offset_mask, offset_mask + 2 * s.taps(), channels, 3 * s.taps(), channels, 3 * s.taps()};
}

}  // namespace mmdcn
