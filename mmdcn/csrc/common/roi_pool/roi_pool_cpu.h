// RoI pooling on the CPU, shared by the RoI operators.
//
// A bin of each of them is a weighted sum over the outer product of a few rows and a few columns
// of a map: the mean over a box of pixels, or over a grid of bilinear samples, where the weights of
// points that share a pixel add up. An operator says which (a RoiPlan per RoI, computed once for
// all channels); the code here does the reading.
#pragma once

#include <algorithm>
#include <vector>

#include "common/cpu/threads.h"
#include "common/roi_pool/roi_math.h"
#include "common/roi_pool/roi_pool.h"

namespace mmdcn {

// Calls f with a value of the type of computation.
template <typename F>
auto dispatch_compute(ScalarType type, const F& f) {
  return type == ScalarType::Double ? f(double{}) : f(float{});
}

// A contiguous copy in the type of computation.
template <typename T>
Tensor compute_copy(const Tensor& tensor) {
  return torch::stable::contiguous(
      cast(tensor, sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float));
}

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
};

template <typename T>
struct RoiPlan {
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

// Calls fill(roi, plan) for each RoI, a row of five numbers; bad batch indices raise.
template <typename T, typename F>
std::vector<RoiPlan<T>> make_plans(const RoiPoolShape& s, const T* rois, const F& fill) {
  std::vector<RoiPlan<T>> plans(s.rois);
  for (int64_t r = 0; r < s.rois; ++r) {
    const T index = rois[5 * r];
    STD_TORCH_CHECK(index >= 0 && index < static_cast<T>(s.batch),
                    "rois: expected batch indices in [0, ", s.batch, "), got ", index, " in row ",
                    r);
    plans[r].image = static_cast<int64_t>(index);
  }
  constexpr int64_t kBlock = 8;
  parallel_items(ceil_div(s.rois, kBlock), [&](int64_t item) {
    size_t taps = 0;  // most RoIs have about as many as the one before
    const int64_t end = std::min((item + 1) * kBlock, s.rois);
    for (int64_t r = item * kBlock; r < end; ++r) {
      RoiPlan<T>& plan = plans[r];
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

// Plans of boxes of whole pixels: pixels(begin, end, bin, bins, map size) gives the pixels of a bin
// along one axis, of a RoI with these corners.
template <typename T, typename F>
std::vector<RoiPlan<T>> make_box_plans(const RoiPoolShape& s, const Tensor& rois_any,
                                       const F& pixels) {
  const Tensor rois = compute_copy<T>(rois_any);
  const T* rois_ptr = rois.template const_data_ptr<T>();
  return make_plans<T>(s, rois_ptr, [&](int64_t r, RoiPlan<T>& plan) {
    const T* roi = rois_ptr + 5 * r;
    const bool finite = roi_is_finite(roi);
    std::vector<int32_t> at{0};  // where the taps of a row, then of a column of bins start
    for (int64_t i = 0; i < s.out_h; ++i) {
      if (finite) plan.add(pixels(roi[2], roi[4], i, s.out_h, s.height));
      at.push_back(plan.size());
    }
    for (int64_t j = 0; j < s.out_w; ++j) {
      if (finite) plan.add(pixels(roi[1], roi[3], j, s.out_w, s.width));
      at.push_back(plan.size());
    }
    for (int64_t b = 0; b < s.bins(); ++b) {
      const int32_t* y = at.data() + b / s.out_w;
      const int32_t* x = at.data() + s.out_h + b % s.out_w;
      const T area = static_cast<T>(y[1] - y[0]) * static_cast<T>(x[1] - x[0]);
      plan.bins.push_back({y[0], y[1], x[0], x[1], area > 0 ? T(1) / area : T(0), T(1)});
    }
  });
}

template <typename T>
struct RoiPoolGradients {
  Tensor input;  // empty unless wanted
  // [RoI][offset group][bin][3] unless empty: the gradients of the bin's mask, and of its position
  // along y and x for a mask of 1.
  std::vector<T> bins;
};

// T is the type of computation; input and output have the storage type of `input`.
template <typename T>
Tensor roi_pool_forward(const RoiPoolShape& s, const Tensor& input,
                        const std::vector<RoiPlan<T>>& plans);

template <typename T>
RoiPoolGradients<T> roi_pool_backward(const RoiPoolShape& s, const Tensor& grad_output,
                                      const Tensor& input, const std::vector<RoiPlan<T>>& plans,
                                      bool need_input, bool need_bins);

}  // namespace mmdcn
