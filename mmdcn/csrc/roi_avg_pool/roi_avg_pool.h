// Average RoI pooling: arguments, and the pixels that a bin covers, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"
#include "common/roi_pool/roi_pool.h"

namespace mmdcn::roi_avg_pool {

struct Op {
  static roi_pool::Shape make_shape(const Tensor& input, const Tensor& rois,
                                    const std::vector<int64_t>& output_size, double spatial_scale) {
    return roi_pool::make_shape(input, rois, output_size, spatial_scale);
  }

  // Along one axis. Corners are rounded and the far one belongs to the RoI, as in Fast R-CNN.
  template <typename T>
  static MMDCN_HOST_DEVICE roi_pool::PixelRange range(T begin, T end, T spatial_scale, int64_t bin,
                                                      int64_t bins, int64_t map_size) {
    const int64_t start = roi_pool::rounded_corner(begin * spatial_scale);
    const int64_t size = roi_pool::rounded_corner(end * spatial_scale) - start + 1;
    return roi_pool::bin_pixels(bin, bins, start, size < 1 ? 1 : size, map_size);
  }
};

}  // namespace mmdcn::roi_avg_pool
