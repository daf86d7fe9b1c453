#include "deform_conv/deform_conv_tile.h"

#include "common/bilinear.h"

namespace mmdcn {

std::vector<Segment> make_segments(const DeformConvShape& s, int64_t max_size) {
  const int64_t per_group = s.group_channels(), per_deform = s.channels / s.deform_groups;
  std::vector<Segment> segments;
  for (int64_t c = 0; c < s.channels;) {
    const int64_t group = c / per_group, deform_group = c / per_deform;
    const int64_t end = std::min({(group + 1) * per_group, (deform_group + 1) * per_deform,
                                  c + max_size});
    const int64_t in_group = c - group * per_group;
    segments.push_back(
        {c, end - c, group, deform_group, in_group, group * s.taps() * per_group + in_group});
    c = end;
  }
  return segments;
}

namespace {

struct Window {  // of pixels at hand
  int32_t first, count;
};

MMDCN_INLINE int32_t within(int32_t index, Window window) {
  const int32_t local = index - window.first;
  const bool near = static_cast<uint32_t>(local) < static_cast<uint32_t>(window.count);
  return index < 0 ? -1 : near ? local : -2 - index;
}

// One tap of one deform group; vectorises over pixels.
template <typename S, typename T>
MMDCN_INLINE void locate_impl(int64_t count, const T* __restrict ys, const T* __restrict xs,
                              T tap_y, T tap_x, const S* __restrict dy, const S* __restrict dx,
                              const S* __restrict mask, int32_t height, int32_t width,
                              Window window, int32_t* __restrict index, T* __restrict value,
                              int64_t stride) {
  MMDCN_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const Corners<T> p = bilinear_corners(ys[i] + tap_y + to_compute(dy[i]),
                                          xs[i] + tap_x + to_compute(dx[i]), height, width);
    const T m = mask ? to_compute(mask[i]) : T(1);
    index[i] = within(p.i00, window);
    index[stride + i] = within(p.i01, window);
    index[2 * stride + i] = within(p.i10, window);
    index[3 * stride + i] = within(p.i11, window);
    value[i] = p.w00 * m;
    value[stride + i] = p.w01 * m;
    value[2 * stride + i] = p.w10 * m;
    value[3 * stride + i] = p.w11 * m;
    value[4 * stride + i] = p.ly;
    value[5 * stride + i] = p.lx;
    value[6 * stride + i] = m;
  }
}

// The four neighbours of a point as rows of channels.
template <typename S>
struct Rows {
  const S* at[4];
};

template <typename S>
Buffer<S> make_scratch(const Segment& segment) {  // a row of zeros, then four rows
  Buffer<S> scratch = make_buffer<S>(5 * segment.size);
  std::fill_n(scratch.get(), segment.size, S(0));
  return scratch;
}

template <typename S, typename T>
MMDCN_INLINE Rows<S> find_rows(const SampledImage<S>& image, const Segment& segment,
                               PointsView<T> points, int64_t i, S* scratch) {
  Rows<S> rows;
  for (int k = 0; k < 4; ++k) {
    const int32_t index = points.index[k * points.stride + i];
    if (index >= 0) {
      rows.at[k] = image.rows + index * image.channels + segment.channel;
    } else if (index == -1) {
      rows.at[k] = scratch;
    } else {
      S* row = scratch + (k + 1) * segment.size;
      const S* pixel = image.planes + segment.channel * image.plane_size + (-2 - index);
      for (int64_t c = 0; c < segment.size; ++c) row[c] = pixel[c * image.plane_size];
      rows.at[k] = row;
    }
  }
  return rows;
}

template <typename S, typename T>
MMDCN_INLINE void sample_impl(const SampledImage<S>& image, const Segment& segment, int64_t count,
                              PointsView<T> points, S* scratch, T* columns, int64_t ld) {
  for (int64_t i = 0; i < count; ++i) {
    const Rows<S> rows = find_rows(image, segment, points, i, scratch);
    const T w0 = points.weight[i], w1 = points.weight[points.stride + i],
            w2 = points.weight[2 * points.stride + i], w3 = points.weight[3 * points.stride + i];
    const S *__restrict r0 = rows.at[0], *__restrict r1 = rows.at[1], *__restrict r2 = rows.at[2],
                       *__restrict r3 = rows.at[3];
    T* __restrict out = columns + i * ld;
    for (int64_t c = 0; c < segment.size; ++c) {
      out[c] = w0 * to_compute(r0[c]) + w1 * to_compute(r1[c]) + w2 * to_compute(r2[c]) +
               w3 * to_compute(r3[c]);
    }
  }
}

template <typename S, typename T>
MMDCN_INLINE void sample_dots_impl(const SampledImage<S>& image, const Segment& segment,
                                   int64_t count, PointsView<T> points, S* scratch,
                                   const T* grad_columns, T* columns, int64_t ld, T* dots) {
  constexpr int64_t kLanes = 64 / sizeof(T);  // partial sums, so that the dot products vectorise
  for (int64_t i = 0; i < count; ++i) {
    const Rows<S> rows = find_rows(image, segment, points, i, scratch);
    const T w0 = points.weight[i], w1 = points.weight[points.stride + i],
            w2 = points.weight[2 * points.stride + i], w3 = points.weight[3 * points.stride + i];
    const S *__restrict r0 = rows.at[0], *__restrict r1 = rows.at[1], *__restrict r2 = rows.at[2],
                       *__restrict r3 = rows.at[3];
    const T* __restrict grad = grad_columns + i * ld;
    T* __restrict out = columns + i * ld;
    T s0[kLanes] = {}, s1[kLanes] = {}, s2[kLanes] = {}, s3[kLanes] = {};
    const auto step = [&](int64_t c, int64_t lane) __attribute__((always_inline)) {
      const T v0 = to_compute(r0[c]), v1 = to_compute(r1[c]), v2 = to_compute(r2[c]),
              v3 = to_compute(r3[c]), g = grad[c];
      s0[lane] += v0 * g;
      s1[lane] += v1 * g;
      s2[lane] += v2 * g;
      s3[lane] += v3 * g;
      out[c] = w0 * v0 + w1 * v1 + w2 * v2 + w3 * v3;
    };
    int64_t c = 0;
    for (; c + kLanes <= segment.size; c += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) step(c + lane, lane);
    }
    for (; c < segment.size; ++c) step(c, 0);
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (int64_t lane = 0; lane < half; ++lane) {
        s0[lane] += s0[lane + half];
        s1[lane] += s1[lane + half];
        s2[lane] += s2[lane + half];
        s3[lane] += s3[lane + half];
      }
    }
    dots[4 * i] += s0[0];
    dots[4 * i + 1] += s1[0];
    dots[4 * i + 2] += s2[0];
    dots[4 * i + 3] += s3[0];
  }
}

template <typename T>
MMDCN_INLINE void scatter_impl(T* grad_image, int64_t channels, const Segment& segment,
                               int64_t count, PointsView<T> points, const T* grad_columns,
                               int64_t ld) {
  for (int64_t i = 0; i < count; ++i) {
    const T* __restrict grad = grad_columns + i * ld;
    for (int k = 0; k < 4; ++k) {
      const int32_t index = points.index[k * points.stride + i];
      if (index < 0) continue;
      const T w = points.weight[k * points.stride + i];
      T* __restrict out = grad_image + index * channels + segment.channel;
      for (int64_t c = 0; c < segment.size; ++c) out[c] += w * grad[c];
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_SAMPLE_LOOPS(S)                                                                      \
  MMDCN_CLONES void locate(int64_t count, const Compute<S>* ys, const Compute<S>* xs,              \
                           Compute<S> tap_y, Compute<S> tap_x, const S* dy, const S* dx,           \
                           const S* mask, int32_t height, int32_t width, Window window,            \
                           int32_t* index, Compute<S>* value, int64_t stride) {                    \
    locate_impl(count, ys, xs, tap_y, tap_x, dy, dx, mask, height, width, window, index, value,    \
                stride);                                                                           \
  }                                                                                                \
  MMDCN_CLONES void sample(const SampledImage<S>& image, const Segment& segment, int64_t count,    \
                           PointsView<Compute<S>> points, S* scratch, Compute<S>* columns,         \
                           int64_t ld) {                                                           \
    sample_impl(image, segment, count, points, scratch, columns, ld);                              \
  }                                                                                                \
  MMDCN_CLONES void sample_dots(const SampledImage<S>& image, const Segment& segment,              \
                                int64_t count, PointsView<Compute<S>> points, S* scratch,          \
                                const Compute<S>* grad_columns, Compute<S>* columns, int64_t ld,   \
                                Compute<S>* dots) {                                                \
    sample_dots_impl(image, segment, count, points, scratch, grad_columns, columns, ld, dots);     \
  }

#define MMDCN_SCATTER_LOOPS(T)                                                                     \
  MMDCN_CLONES void scatter(T* grad_image, int64_t channels, const Segment& segment,               \
                            int64_t count, PointsView<T> points, const T* grad_columns,            \
                            int64_t ld) {                                                          \
    scatter_impl(grad_image, channels, segment, count, points, grad_columns, ld);                  \
  }

MMDCN_SAMPLE_LOOPS(double)
MMDCN_SAMPLE_LOOPS(float)
MMDCN_SAMPLE_LOOPS(BFloat16)
MMDCN_SAMPLE_LOOPS(Half)
MMDCN_SCATTER_LOOPS(double)
MMDCN_SCATTER_LOOPS(float)

}  // namespace

template <typename S>
void locate_tile(const DeformConvShape& s, const S* offset, const S* mask, Band band, int64_t first,
                 int64_t count, Points<Compute<S>>& points, int64_t slot, int64_t slots) {
  using T = Compute<S>;
  const Buffer<T> ys = make_buffer<T>(count), xs = make_buffer<T>(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t pixel = first + i;
    ys[i] = static_cast<T>(pixel / s.out_w * s.stride_h - s.pad_h);
    xs[i] = static_cast<T>(pixel % s.out_w * s.stride_w - s.pad_w);
  }
  const Window window{static_cast<int32_t>(band.first_row * s.width),
                      static_cast<int32_t>(band.rows * s.width)};
  const int64_t pixels = s.out_pixels();
  for (int64_t d = 0; d < s.deform_groups; ++d) {
    for (int64_t k = 0; k < s.taps(); ++k) {
      const int64_t point = d * s.taps() + k, at = point * slots + slot;
      const S* dy = offset + 2 * point * pixels + first;
      locate(count, ys.get(), xs.get(), static_cast<T>(k / s.kernel_w * s.dilation_h),
             static_cast<T>(k % s.kernel_w * s.dilation_w), dy, dy + pixels,
             mask ? mask + point * pixels + first : nullptr, static_cast<int32_t>(s.height),
             static_cast<int32_t>(s.width), window, points.index.get() + at,
             points.value.get() + at, points.capacity);
    }
  }
}

template <typename S>
void sample_tile(const SampledImage<S>& image, const Segment& segment, int64_t count,
                 PointsView<Compute<S>> points, Compute<S>* columns, int64_t ld) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  sample(image, segment, count, points, scratch.get(), columns, ld);
}

template <typename S>
void sample_tile_with_dots(const SampledImage<S>& image, const Segment& segment, int64_t count,
                           PointsView<Compute<S>> points, const Compute<S>* grad_columns,
                           Compute<S>* columns, int64_t ld, Compute<S>* dots) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  sample_dots(image, segment, count, points, scratch.get(), grad_columns, columns, ld, dots);
}

template <typename T>
void scatter_tile(T* grad_image, int64_t channels, const Segment& segment, int64_t count,
                  PointsView<T> points, const T* grad_columns, int64_t ld) {
  scatter(grad_image, channels, segment, count, points, grad_columns, ld);
}

#define MMDCN_INSTANTIATE(S)                                                                       \
  template void locate_tile<S>(const DeformConvShape&, const S*, const S*, Band, int64_t, int64_t, \
                               Points<Compute<S>>&, int64_t, int64_t);                             \
  template void sample_tile<S>(const SampledImage<S>&, const Segment&, int64_t,                    \
                               PointsView<Compute<S>>, Compute<S>*, int64_t);                      \
  template void sample_tile_with_dots<S>(const SampledImage<S>&, const Segment&, int64_t,          \
                                         PointsView<Compute<S>>, const Compute<S>*, Compute<S>*,   \
                                         int64_t, Compute<S>*);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)
template void scatter_tile<double>(double*, int64_t, const Segment&, int64_t, PointsView<double>,
                                   const double*, int64_t);
template void scatter_tile<float>(float*, int64_t, const Segment&, int64_t, PointsView<float>,
                                  const float*, int64_t);

}  // namespace mmdcn
