// The pixels that a bin of position-sensitive RoI pooling covers, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"

namespace mmdcn {

// Along one axis. Corners are rounded, the far one does not belong to the RoI, and bins are clipped
// so that the last row and column of the map are never read.
template <typename T>
MMDCN_HOST_DEVICE PixelRange ps_roi_pool_bin(T begin, T end, T spatial_scale, int64_t bin,
                                             int64_t bins, int64_t map_size) {
  const int64_t start = rounded_corner(begin * spatial_scale);
  const int64_t size = rounded_corner(end * spatial_scale) - start;
  return bin_pixels(bin, bins, start, size < 1 ? 1 : size, map_size - 1);
}

}  // namespace mmdcn
