// What the bins of a RoI read, on the CPU.
//
// A bin of every RoI operator is a weighted sum over the outer product of a few rows and a few
// columns of a map: the mean over a box of pixels, or over a grid of bilinear samples, where the
// weights of points that share a pixel add up. An operator says which, in a Plan for each RoI, once
// for all channels.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/dtypes.h"
#include "common/cpu/threads.h"
#include "common/roi_pool/roi_math.h"
#include "common/roi_pool/roi_pool.h"

namespace mmdcn::roi_pool {

// A row or column that a bin reads, with its weight and the derivative of the weight with respect
// to the position of the bin.
template <typename T>
struct Tap {
  int32_t index;
  T weight, slope;
};

// Taps [y_begin, y_end) and [x_begin, x_end) of the RoI's plan. The bin's value is
// mask * scale * (the weighted sum).
template <typename T>
struct Bin {
  int32_t y_begin, y_end, x_begin, x_end;
  T scale, mask;

  // For the gradients of its position: a bin that reads nothing has none, even if its mask is NaN.
  T factor() const { return y_begin < y_end && x_begin < x_end ? mask : T(0); }
};

template <typename T>
struct Plan {
  int64_t image;
  std::vector<Tap<T>> taps;
  std::vector<Bin<T>> bins;  // [offset group][bin]
  PixelRange rows;           // of the map that the bins read, from the first to the last

  int32_t size() const { return static_cast<int32_t>(taps.size()); }

  // Adds to the taps since `begin`. Points come in order along an axis, so that a pixel seen
  // before is one of the latest.
  void add(int32_t begin, int32_t index, T weight, T slope) {
    for (int32_t i = size(); i-- > std::max(begin, size() - 3);) {
      if (taps[i].index != index) continue;
      taps[i].weight += weight;
      taps[i].slope += slope;
      return;
    }
    taps.push_back({index, weight, slope});
  }

  void add(int32_t begin, const AxisSample<T>& sample) {
    add(begin, sample.lo, sample.weight_lo, -sample.slope);
    add(begin, sample.hi, sample.weight_hi, sample.slope);
  }

  void add(const PixelRange& range) {
    for (int32_t i = range.begin; i < range.end; ++i) taps.push_back({i, T(1), T(0)});
  }
};

// The tensors that say what to read, in the type of computation.
template <typename T>
class RoiTensors {
 public:
  explicit RoiTensors(const Tensor& rois, const std::optional<Tensor>& offset = std::nullopt,
                      const std::optional<Tensor>& mask = std::nullopt)
      : rois_(rois), offset_(offset), mask_(mask) {}

  // Those of a RoI: five numbers; offsets and masks are null if there are none.
  const T* roi(int64_t r) const { return rois_.of(r); }
  const T* offset(int64_t r) const { return offset_.of(r); }
  const T* mask(int64_t r) const { return mask_.of(r); }

 private:
  struct Entries {
    std::optional<Tensor> tensor;
    const T* data = nullptr;
    int64_t size = 0;  // of a RoI's

    explicit Entries(const std::optional<Tensor>& any) {
      if (!any || any->numel() == 0) return;
      const ScalarType type = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
      tensor = contiguous_tensor(cast(*any, type));
      data = tensor->template const_data_ptr<T>();
      size = tensor->numel() / tensor->size(0);
    }
    const T* of(int64_t r) const { return data ? data + r * size : nullptr; }
  };

  Entries rois_, offset_, mask_;
};

// Calls fill(RoI, plan) for each RoI; bad batch indices raise.
template <typename T, typename F>
std::vector<Plan<T>> make_plans(const Shape& s, const RoiTensors<T>& tensors, const F& fill) {
  std::vector<Plan<T>> plans(s.rois);
  for (int64_t r = 0; r < s.rois; ++r) {
    const T index = tensors.roi(r)[0];
    MMDCN_CHECK(index >= 0 && index < static_cast<T>(s.batch) && index == std::floor(index),
                "rois: expected batch indices in [0, ", s.batch, "), got ", index, " in row ", r);
    plans[r].image = static_cast<int64_t>(index);
  }
  constexpr int64_t kBlock = 8;
  parallel_items(ceil_div(s.rois, kBlock), [&](int64_t item) {
    size_t taps = 0;  // most RoIs have about as many as the one before
    const int64_t end = std::min((item + 1) * kBlock, s.rois);
    for (int64_t r = item * kBlock; r < end; ++r) {
      Plan<T>& plan = plans[r];
      plan.taps.reserve(taps + taps / 4);
      plan.bins.reserve(s.offset_groups * s.bins());
      fill(r, plan);
      taps = plan.taps.size();
      plan.rows = {static_cast<int32_t>(s.height), 0};
      for (const Bin<T>& bin : plan.bins) {
        for (int32_t y = bin.y_begin; y < bin.y_end; ++y) plan.rows.add(plan.taps[y].index);
      }
    }
  });
  return plans;
}

// Adds bins that share the taps of their row and column in the grid: add_row(i) and add_column(j)
// add these to the plan, scale(rows, columns) is for a bin with so many taps, mask(bin) its mask.
template <typename T, typename Rows, typename Columns, typename Scale, typename Mask>
void add_grid(const Shape& s, Plan<T>& plan, const Rows& add_row, const Columns& add_column,
              const Scale& scale, const Mask& mask) {
  std::vector<int32_t> at{plan.size()};  // where the taps of a row, then of a column of bins start
  for (int64_t i = 0; i < s.out_h; ++i) {
    add_row(i);
    at.push_back(plan.size());
  }
  for (int64_t j = 0; j < s.out_w; ++j) {
    add_column(j);
    at.push_back(plan.size());
  }
  for (int64_t b = 0; b < s.bins(); ++b) {
    const int32_t* y = at.data() + b / s.out_w;
    const int32_t* x = at.data() + s.out_h + b % s.out_w;
    plan.bins.push_back({y[0], y[1], x[0], x[1], scale(y[1] - y[0], x[1] - x[0]), mask(b)});
  }
}

// Plans of boxes of whole pixels: Op::range gives those of a bin along one axis.
template <typename Op, typename T>
std::vector<Plan<T>> make_box_plans(const Shape& s, const Tensor& rois, double spatial_scale) {
  const RoiTensors<T> tensors(rois);
  const T scale = static_cast<T>(spatial_scale);
  return make_plans<T>(s, tensors, [&](int64_t r, Plan<T>& plan) {
    const T* roi = tensors.roi(r);
    const bool finite = roi_is_finite(roi);
    const auto add_row = [&](int64_t i) {
      if (finite) plan.add(Op::range(roi[2], roi[4], scale, i, s.out_h, s.height));
    };
    const auto add_column = [&](int64_t j) {
      if (finite) plan.add(Op::range(roi[1], roi[3], scale, j, s.out_w, s.width));
    };
    const auto mean = [](int32_t rows, int32_t columns) {
      const T area = static_cast<T>(rows) * static_cast<T>(columns);
      return area > 0 ? T(1) / area : T(0);
    };
    add_grid(s, plan, add_row, add_column, mean, [](int64_t) { return T(1); });
  });
}

}  // namespace mmdcn::roi_pool
