// Where the bins of deformable position-sensitive RoI pooling sample, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"

namespace mmdcn {

// One axis of a RoI: corners are rounded in the image, the far pixel belongs to the RoI.
template <typename T>
struct DeformPSRoiAxis {
  T start, size, bin, step;

  // Position of sample k of bin i when it is shifted by `shift`.
  MMDCN_HOST_DEVICE T position(T shift, int64_t i, int64_t k) const {
    return (static_cast<T>(i) * bin + start + shift) + static_cast<T>(k) * step;
  }
};

template <typename T>
MMDCN_HOST_DEVICE DeformPSRoiAxis<T> deform_ps_roi_axis(T begin, T end, T spatial_scale,
                                                        int64_t bins, int64_t samples) {
  DeformPSRoiAxis<T> axis;
  axis.start = std::round(begin) * spatial_scale - T(0.5);
  const T size = ((std::round(end) + T(1)) * spatial_scale - T(0.5)) - axis.start;
  axis.size = size < T(0.1) ? T(0.1) : size;
  axis.bin = axis.size / static_cast<T>(bins);
  axis.step = axis.bin / static_cast<T>(samples);
  return axis;
}

// Points further than half a pixel outside the map do not count.
template <typename T>
MMDCN_HOST_DEVICE bool deform_ps_roi_samples(T position, int64_t map_size) {
  return position >= T(-0.5) && position <= static_cast<T>(map_size) - T(0.5);
}

}  // namespace mmdcn
