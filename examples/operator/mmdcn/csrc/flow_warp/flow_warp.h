// Warping of images by a flow: sizes and argument checks, for both devices.
#pragma once

#include "common/base/checks.h"
#include "common/base/tensor.h"

namespace mmdcn::flow_warp {

struct Shape {
  int64_t batch, channels, height, width;
  int64_t unit_y, unit_x;  // pixels per unit of the offsets

  int64_t pixels() const { return height * width; }
};

// Raises for what does not fit.
inline Shape make_shape(const Tensor& input, const Tensor& offset,
                        const std::vector<int64_t>& unit) {
  check_dim(input, "input", 4);
  check_floating(input, "input");
  check_like(offset, "offset", input, "input");
  check_pair(unit, "unit", 1);
  const Shape s{input.size(0), input.size(1), input.size(2), input.size(3), unit[0], unit[1]};
  check_map_size(s.height, s.width);
  check_shape(offset, "offset", {s.batch, 2, s.height, s.width});
  return s;
}

}  // namespace mmdcn::flow_warp
