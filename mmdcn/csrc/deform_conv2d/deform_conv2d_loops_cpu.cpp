// The inner loops of a tile, compiled for several instruction sets.
#include "common/base/bilinear.h"
#include "common/cpu/vec.h"
#include "deform_conv2d/deform_conv2d_tile_cpu.h"

namespace mmdcn::deform_conv2d {
namespace {

struct Window {  // of pixels at hand
  int32_t first, count;
};

MMDCN_INLINE int32_t within(int32_t index, Window window) {
  const int32_t local = index - window.first;
  const bool near = static_cast<uint32_t>(local) < static_cast<uint32_t>(window.count);
  return index < 0 ? -1 : near ? local : -2 - index;
}

// A tap of a deform group at a run of pixels, and where its points go.
template <typename S>
struct TapRun {
  int64_t count;
  const Compute<S>*ys, *xs;  // of the kernel's first tap
  Compute<S> tap_y, tap_x;   // relative to that
  const S *dy, *dx, *mask;   // mask may be null
  int32_t height, width;     // of the image
  Window window;
  PointsView<Compute<S>> points;
};

template <typename S, typename T = Compute<S>>
MMDCN_INLINE void locate_impl(const TapRun<S>& run) {  // vectorises over pixels
  const TapRun<S> r = run;
  int32_t* const index = r.points.index;
  T* const value = r.points.weight;
  const int64_t stride = r.points.stride;
  MMDCN_INDEPENDENT
  for (int64_t i = 0; i < r.count; ++i) {
    const Corners<T> p =
        bilinear_corners(r.ys[i] + r.tap_y + to_compute(r.dy[i]),
                         r.xs[i] + r.tap_x + to_compute(r.dx[i]), r.height, r.width);
    const T m = r.mask ? to_compute(r.mask[i]) : T(1);
    index[i] = within(p.i00, r.window);
    index[stride + i] = within(p.i01, r.window);
    index[2 * stride + i] = within(p.i10, r.window);
    index[3 * stride + i] = within(p.i11, r.window);
    value[i] = p.w00 * m;
    value[stride + i] = p.w01 * m;
    value[2 * stride + i] = p.w10 * m;
    value[3 * stride + i] = p.w11 * m;
    value[4 * stride + i] = p.ly;
    value[5 * stride + i] = p.lx;
    value[6 * stride + i] = m;
  }
}

// The channels of a point's four neighbours.
template <typename S>
struct Neighbours {
  const S* at[4];
};

template <typename S>
Buffer<S> make_scratch(const Segment& segment) {  // zeros, then room for four neighbours
  Buffer<S> scratch = make_buffer<S>(5 * segment.size);
  std::fill_n(scratch.get(), segment.size, S(0));
  return scratch;
}

template <typename S, typename T>
MMDCN_INLINE Neighbours<S> find_neighbours(const SampledImage<S>& image, const Segment& segment,
                                           PointsView<T> points, int64_t i, S* scratch) {
  Neighbours<S> neighbours;
  for (int k = 0; k < 4; ++k) {
    const int32_t index = points.index[k * points.stride + i];
    if (index >= 0) {
      neighbours.at[k] = image.band + index * image.channels + segment.channel;
    } else if (index == -1) {
      neighbours.at[k] = scratch;
    } else {
      S* copy = scratch + (k + 1) * segment.size;
      const S* pixel = image.planes + segment.channel * image.plane_size + (-2 - index);
      for (int64_t c = 0; c < segment.size; ++c) copy[c] = pixel[c * image.plane_size];
      neighbours.at[k] = copy;
    }
  }
  return neighbours;
}

template <int kBytes, typename S, typename E, typename T>
MMDCN_INLINE void sample_impl(const SampledImage<S>& image, const Segment& segment, int64_t count,
                              PointsView<T> points, E* columns, int64_t ld) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  for (int64_t i = 0; i < count; ++i, columns += ld) {
    const Neighbours<S> from = find_neighbours(image, segment, points, i, scratch.get());
    const T w0 = points.weight[i], w1 = points.weight[points.stride + i],
            w2 = points.weight[2 * points.stride + i], w3 = points.weight[3 * points.stride + i];
    for_chunks<kLanes<S, kBytes>>(
        0, segment.size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
          constexpr int kVectors = vectors;
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v, c += lanes) {
            store<lanes>(columns + c,
                         (w0 * load<lanes>(from.at[0] + c) + w1 * load<lanes>(from.at[1] + c)) +
                             (w2 * load<lanes>(from.at[2] + c) + w3 * load<lanes>(from.at[3] + c)));
          }
        });
  }
}

template <int kBytes, typename S, typename E, typename T>
MMDCN_INLINE void sample_with_dots_impl(const SampledImage<S>& image, const Segment& segment,
                                        int64_t count, PointsView<T> points, const T* grad_columns,
                                        E* columns, int64_t ld, T* dots) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  for (int64_t i = 0; i < count; ++i, columns += ld, grad_columns += ld) {
    const Neighbours<S> from = find_neighbours(image, segment, points, i, scratch.get());
    Vec<T, 4> dot = {};
    int64_t c = 0;
    const auto run = [&](auto lanes) __attribute__((always_inline)) {
      if (c + lanes > segment.size) return;
      Vec<T, lanes> product[4] = {};
      for (; c + lanes <= segment.size; c += lanes) {
        const Vec<T, lanes> g = load<lanes>(grad_columns + c);
        Vec<T, lanes> sample = {};
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const Vec<T, lanes> value = load<lanes>(from.at[k] + c);
          product[k] += g * value;
          sample += points.weight[k * points.stride + i] * value;
        }
        store<lanes>(columns + c, sample);
      }
      dot += sum_lanes_of_four<T, lanes>(product);
    };
    run(Int<kLanes<S, kBytes>>{});
    run(Int<4>{});
    run(Int<1>{});
    store<4>(dots + 4 * i, load<4>(dots + 4 * i) + dot);
  }
}

// Adds kAtOnce lanes at once.
template <int kAtOnce, typename T>
MMDCN_INLINE void scatter_impl(T* grad_image, int64_t channels, const Segment& segment,
                               int64_t count, PointsView<T> points, const T* grad_columns,
                               int64_t ld) {
  for (int64_t i = 0; i < count; ++i, grad_columns += ld) {
    for (int k = 0; k < 4; ++k) {
      const int32_t index = points.index[k * points.stride + i];
      if (index < 0) continue;
      const T w = points.weight[k * points.stride + i];
      T* const out = grad_image + index * channels + segment.channel;
      for_chunks<kAtOnce>(
          0, segment.size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
            constexpr int kVectors = vectors;
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v, c += lanes) {
              store<lanes>(out + c, load<lanes>(out + c) + w * load<lanes>(grad_columns + c));
            }
          });
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_LOCATE_LOOPS(S) \
  MMDCN_CLONES void locate(const TapRun<S>& run) { locate_impl(run); }
MMDCN_LOCATE_LOOPS(double)
MMDCN_LOCATE_LOOPS(float)
MMDCN_LOCATE_LOOPS(BFloat16)
MMDCN_LOCATE_LOOPS(Half)

}  // namespace

#define MMDCN_SAMPLE_LOOPS(S, E)                                                                  \
  MMDCN_CLONES void sample_tile(const SampledImage<S>& image, const Segment& segment,             \
                                int64_t count, PointsView<Compute<S>> points, E* columns,         \
                                int64_t ld) {                                                     \
    sample_impl<kWideBytes>(image, segment, count, points, columns, ld);                          \
  }                                                                                               \
  MMDCN_CLONES void sample_tile_with_dots(const SampledImage<S>& image, const Segment& segment,   \
                                          int64_t count, PointsView<Compute<S>> points,           \
                                          const Compute<S>* grad_columns, E* columns, int64_t ld, \
                                          Compute<S>* dots) {                                     \
    sample_with_dots_impl<kWideBytes>(image, segment, count, points, grad_columns, columns, ld,   \
                                      dots);                                                      \
  }
MMDCN_SAMPLE_LOOPS(double, double)
MMDCN_SAMPLE_LOOPS(float, float)
MMDCN_SAMPLE_LOOPS(BFloat16, float)
MMDCN_SAMPLE_LOOPS(BFloat16, BFloat16)
MMDCN_SAMPLE_LOOPS(Half, float)

#define MMDCN_SCATTER_LOOPS(T)                                                               \
  MMDCN_CLONES void scatter_tile(T* grad_image, int64_t channels, const Segment& segment,    \
                                 int64_t count, PointsView<T> points, const T* grad_columns, \
                                 int64_t ld) {                                               \
    scatter_impl<kSumLanes>(grad_image, channels, segment, count, points, grad_columns, ld); \
  }
MMDCN_SCATTER_LOOPS(double)
MMDCN_SCATTER_LOOPS(float)

template <typename S>
void locate_tile(const Shape& s, const PointTensors<S>& tensors, Band band, int64_t first,
                 int64_t count, const Points<Compute<S>>& points, int64_t pixel) {
  using T = Compute<S>;
  const Buffer<T> ys = make_buffer<T>(count), xs = make_buffer<T>(count);
  for (int64_t i = 0; i < count; ++i) {
    ys[i] = static_cast<T>((first + i) / s.out_w * s.stride_h - s.pad_h);
    xs[i] = static_cast<T>((first + i) % s.out_w * s.stride_w - s.pad_w);
  }
  const int32_t height = static_cast<int32_t>(s.height), width = static_cast<int32_t>(s.width);
  const Window window{static_cast<int32_t>(band.first_row * s.width),
                      static_cast<int32_t>(band.rows * s.width)};
  const int64_t plane = s.out_pixels();
  for (int64_t point = 0; point < s.points(); ++point) {
    const int64_t k = point % s.taps();
    const S* dy = tensors.offset + 2 * point * plane + first;
    locate(TapRun<S>{count, ys.get(), xs.get(), static_cast<T>(k / s.kernel_w * s.dilation_h),
                     static_cast<T>(k % s.kernel_w * s.dilation_w), dy, dy + plane,
                     tensors.mask ? tensors.mask + point * plane + first : nullptr, height, width,
                     window, PointsView<T>(points, point, pixel)});
  }
}

#define MMDCN_INSTANTIATE(S)                                                                 \
  template void locate_tile<S>(const Shape&, const PointTensors<S>&, Band, int64_t, int64_t, \
                               const Points<Compute<S>>&, int64_t);
MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn::deform_conv2d
