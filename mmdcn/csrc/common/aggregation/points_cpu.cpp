#include "common/aggregation/points_cpu.h"

#include "common/base/bilinear.h"
#include "common/cpu/math.h"

namespace mmdcn::aggregation {
namespace {

template <typename S, typename T>
MMDCN_INLINE void load_taps(int64_t taps, const S* __restrict offset, const S* __restrict weight,
                            const T* __restrict grid_y, const T* __restrict grid_x, T base_y,
                            T base_x, T scale, T* __restrict y, T* __restrict x, T* __restrict w) {
  for (int64_t k = 0; k < taps; ++k) {
    x[k] = base_x + grid_x[k] + to_compute(offset[2 * k]) * scale;
    y[k] = base_y + grid_y[k] + to_compute(offset[2 * k + 1]) * scale;
    w[k] = to_compute(weight[k]);
  }
}

template <typename T>
MMDCN_INLINE void softmax(int64_t taps, T* __restrict w) {
  T top = w[0];
  for (int64_t k = 1; k < taps; ++k) top = w[k] > top ? w[k] : top;
  for (int64_t k = 0; k < taps; ++k) w[k] = exp_nonpositive(w[k] - top);
  T sum = 0;
  for (int64_t k = 0; k < taps; ++k) sum += w[k];
  const T scale = T(1) / sum;
  for (int64_t k = 0; k < taps; ++k) w[k] *= scale;
}

// Whether all neighbours of all points are in these rows. NaN is not.
template <typename T>
MMDCN_INLINE bool all_inside(int64_t points, const T* __restrict y, const T* __restrict x,
                             RowRange rows, int32_t width) {
  const T top = static_cast<T>(rows.begin), bottom = static_cast<T>(rows.end - 1);
  const T right = static_cast<T>(width - 1);
  int32_t outside = 0;
  for (int64_t j = 0; j < points; ++j) {
    outside |= !(y[j] >= top) | !(y[j] < bottom) | !(x[j] >= T(0)) | !(x[j] < right);
  }
  return !outside;
}

// The same to the bit as locate_anywhere: which points share a block depends on the threads.
template <typename T>
MMDCN_INLINE void locate_inside(int64_t points, int32_t width, int32_t pixel_stride, int64_t stride,
                                T* __restrict value, int32_t* __restrict first) {
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < points; ++j) {
    const T w = value[kTapWeight * stride + j];
    const T y = value[kY * stride + j], x = value[kX * stride + j];
    const T top = std::floor(y), left = std::floor(x), ly = y - top, lx = x - left;
    first[j] = (static_cast<int32_t>(top) * width + static_cast<int32_t>(left)) * pixel_stride;
    const T hy = T(1) - ly, hx = T(1) - lx;
    value[j] = hy * hx * w;
    value[stride + j] = hy * lx * w;
    value[2 * stride + j] = ly * hx * w;
    value[3 * stride + j] = ly * lx * w;
    value[kLy * stride + j] = ly;
    value[kLx * stride + j] = lx;
  }
}

template <typename T>
MMDCN_INLINE void locate_anywhere(int64_t points, int32_t height, int32_t width,
                                  int32_t pixel_stride, int64_t missing, int64_t stride,
                                  T* __restrict value, int64_t* __restrict places) {
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < points; ++j) {
    const T w = value[kTapWeight * stride + j];
    const Corners<T> p =
        bilinear_corners(value[kY * stride + j], value[kX * stride + j], height, width);
    const auto place = [&](int32_t index) __attribute__((always_inline)) {
      return index < 0 ? missing : static_cast<int64_t>(index) * pixel_stride;
    };
    places[j] = place(p.i00);
    places[stride + j] = place(p.i01);
    places[2 * stride + j] = place(p.i10);
    places[3 * stride + j] = place(p.i11);
    value[j] = p.w00 * w;
    value[stride + j] = p.w01 * w;
    value[2 * stride + j] = p.w10 * w;
    value[3 * stride + j] = p.w11 * w;
    value[kLy * stride + j] = p.ly;
    value[kLx * stride + j] = p.lx;
  }
}

// kTaps is the number of taps when it is known to the compiler, else 0.
template <int kTaps, typename S, typename T>
MMDCN_INLINE void locate_impl(const Sampler<S>& sampler, const PointRange& range,
                              const Image<S>& image, RowRange rows, Block<T>& block) {
  const Shape& s = sampler.s;
  const Points<const S>& points = sampler.points;
  const Grid<T>& grid = sampler.grid;
  const int64_t taps = kTaps ? kTaps : s.taps();
  T *const ys = block.field(kY), *const xs = block.field(kX), *const ws = block.field(kTapWeight);
  int64_t at = 0, out_y = range.first / s.out_w, out_x = range.first % s.out_w;
  for (int64_t i = 0; i < range.count; ++i, ++out_x) {
    if (out_x == s.out_w) out_x = 0, ++out_y;
    const int64_t pixel = range.n * s.out_pixels() + range.first + i;
    const T base_y = static_cast<T>(out_y * s.stride_h);
    const T base_x = static_cast<T>(out_x * s.stride_w);
    for (int64_t g = range.group; g < range.group + range.groups; ++g, at += taps) {
      load_taps(taps, points.offset + pixel * points.offset_pixel + g * points.offset_group,
                points.weight + pixel * points.weight_pixel + g * points.weight_group, grid.y.get(),
                grid.x.get(), base_y, base_x, grid.scale, ys + at, xs + at, ws + at);
      if (s.softmax) softmax(taps, ws + at);
    }
  }
  const int32_t height = static_cast<int32_t>(s.height), width = static_cast<int32_t>(s.width);
  block.inside =
      s.height * s.width * image.stride < INT32_MAX && all_inside(at, ys, xs, rows, width);
  if (block.inside) {
    locate_inside(at, width, image.stride, block.capacity, block.value.get(), block.first.get());
  } else {
    locate_anywhere(at, height, width, image.stride, image.missing, block.capacity,
                    block.value.get(), block.places.get());
  }
}

}  // namespace

// Clones need plain functions: one set per type.
#define MMDCN_LOCATE(S)                                                               \
  MMDCN_CLONES void locate_points(const Sampler<S>& sampler, const PointRange& range, \
                                  const Image<S>& image, RowRange rows,               \
                                  Block<Compute<S>>& block) {                         \
    if (sampler.s.taps() == 9) {                                                      \
      locate_impl<9>(sampler, range, image, rows, block);                             \
    } else {                                                                          \
      locate_impl<0>(sampler, range, image, rows, block);                             \
    }                                                                                 \
  }
MMDCN_LOCATE(double)
MMDCN_LOCATE(float)
MMDCN_LOCATE(BFloat16)
MMDCN_LOCATE(Half)

}  // namespace mmdcn::aggregation
