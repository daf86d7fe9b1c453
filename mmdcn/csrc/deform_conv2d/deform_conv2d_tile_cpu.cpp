#include "deform_conv2d/deform_conv2d_tile_cpu.h"

#include "common/base/bilinear.h"
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"

namespace mmdcn {

std::vector<Segment> make_segments(const DeformConvShape& s, int64_t max_size) {
  const int64_t per_group = s.group_channels(), per_deform = s.channels / s.deform_groups;
  std::vector<Segment> segments;
  for (int64_t c = 0; c < s.channels;) {
    const int64_t group = c / per_group, deform_group = c / per_deform;
    const int64_t end =
        std::min({(group + 1) * per_group, (deform_group + 1) * per_deform, c + max_size});
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

template <typename S, typename E, typename T>
MMDCN_INLINE void sample_impl(const SampledImage<S>& image, const Segment& segment, int64_t count,
                              PointsView<T> points, S* scratch, E* columns, int64_t ld) {
  for (int64_t i = 0; i < count; ++i, columns += ld) {
    const Rows<S> rows = find_rows(image, segment, points, i, scratch);
    const T w0 = points.weight[i], w1 = points.weight[points.stride + i],
            w2 = points.weight[2 * points.stride + i], w3 = points.weight[3 * points.stride + i];
    for_chunks<kLanes<S>>(
        0, segment.size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v, c += lanes) {
            store_vec<lanes>(
                columns + c,
                (w0 * load_vec<lanes>(rows.at[0] + c) + w1 * load_vec<lanes>(rows.at[1] + c)) +
                    (w2 * load_vec<lanes>(rows.at[2] + c) + w3 * load_vec<lanes>(rows.at[3] + c)));
          }
        });
  }
}

template <typename S, typename E, typename T>
MMDCN_INLINE void sample_dots_impl(const SampledImage<S>& image, const Segment& segment,
                                   int64_t count, PointsView<T> points, S* scratch,
                                   const T* grad_columns, E* columns, int64_t ld, T* dots) {
  for (int64_t i = 0; i < count; ++i, columns += ld, grad_columns += ld) {
    const Rows<S> rows = find_rows(image, segment, points, i, scratch);
    Vec<T, 4> dot = {};
    int64_t c = 0;
    const auto run = [&](auto lanes) __attribute__((always_inline)) {
      if (c + lanes > segment.size) return;
      Vec<T, lanes> product[4] = {};
      for (; c + lanes <= segment.size; c += lanes) {
        const Vec<T, lanes> g = load_vec<lanes>(grad_columns + c);
        Vec<T, lanes> sample = {};
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const Vec<T, lanes> value = load_vec<lanes>(rows.at[k] + c);
          product[k] += g * value;
          sample += points.weight[k * points.stride + i] * value;
        }
        store_vec<lanes>(columns + c, sample);
      }
      dot += sum_lanes_of_four<T, lanes>(product);
    };
    run(Int<kLanes<S>>{});
    run(Int<4>{});
    run(Int<1>{});
    store_vec<4>(dots + 4 * i, load_vec<4>(dots + 4 * i) + dot);
  }
}

template <typename T>
MMDCN_INLINE void scatter_impl(T* grad_image, int64_t channels, const Segment& segment,
                               int64_t count, PointsView<T> points, const T* grad_columns,
                               int64_t ld) {
  for (int64_t i = 0; i < count; ++i, grad_columns += ld) {
    for (int k = 0; k < 4; ++k) {
      const int32_t index = points.index[k * points.stride + i];
      if (index < 0) continue;
      const T w = points.weight[k * points.stride + i];
      T* const out = grad_image + index * channels + segment.channel;
      // Not wider: processors forward the widest stores to the next load late.
      for_chunks<8>(
          0, segment.size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v, c += lanes) {
              store_vec<lanes>(out + c,
                               load_vec<lanes>(out + c) + w * load_vec<lanes>(grad_columns + c));
            }
          });
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_LOCATE_LOOPS(S)                                                                   \
  MMDCN_CLONES void locate(int64_t count, const Compute<S>* ys, const Compute<S>* xs,           \
                           Compute<S> tap_y, Compute<S> tap_x, const S* dy, const S* dx,        \
                           const S* mask, int32_t height, int32_t width, Window window,         \
                           int32_t* index, Compute<S>* value, int64_t stride) {                 \
    locate_impl(count, ys, xs, tap_y, tap_x, dy, dx, mask, height, width, window, index, value, \
                stride);                                                                        \
  }

#define MMDCN_SAMPLE_LOOPS(S, E)                                                                \
  MMDCN_CLONES void sample(const SampledImage<S>& image, const Segment& segment, int64_t count, \
                           PointsView<Compute<S>> points, S* scratch, E* columns, int64_t ld) { \
    sample_impl(image, segment, count, points, scratch, columns, ld);                           \
  }                                                                                             \
  MMDCN_CLONES void sample_dots(const SampledImage<S>& image, const Segment& segment,           \
                                int64_t count, PointsView<Compute<S>> points, S* scratch,       \
                                const Compute<S>* grad_columns, E* columns, int64_t ld,         \
                                Compute<S>* dots) {                                             \
    sample_dots_impl(image, segment, count, points, scratch, grad_columns, columns, ld, dots);  \
  }

#define MMDCN_SCATTER_LOOPS(T)                                                          \
  MMDCN_CLONES void scatter(T* grad_image, int64_t channels, const Segment& segment,    \
                            int64_t count, PointsView<T> points, const T* grad_columns, \
                            int64_t ld) {                                               \
    scatter_impl(grad_image, channels, segment, count, points, grad_columns, ld);       \
  }

MMDCN_LOCATE_LOOPS(double)
MMDCN_LOCATE_LOOPS(float)
MMDCN_LOCATE_LOOPS(BFloat16)
MMDCN_LOCATE_LOOPS(Half)
MMDCN_SAMPLE_LOOPS(double, double)
MMDCN_SAMPLE_LOOPS(float, float)
MMDCN_SAMPLE_LOOPS(BFloat16, float)
MMDCN_SAMPLE_LOOPS(BFloat16, BFloat16)
MMDCN_SAMPLE_LOOPS(Half, float)
MMDCN_SCATTER_LOOPS(double)
MMDCN_SCATTER_LOOPS(float)

}  // namespace

template <typename E, typename S>
Panels<E> pack_weight(const DeformConvShape& s, const S* weight) {
  using T = Compute<S>;
  constexpr int64_t kChannels = 16;
  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), channels = s.group_channels(), outs = s.group_out_channels();
  Panels<E> panels(gemm, s.groups, taps * channels, outs);
  const int64_t count = ceil_div(outs, gemm.nr);
  parallel_items(s.groups * count, [&](int64_t item) {
    const int64_t g = item / count, first = item % count * gemm.nr;
    const int64_t rows = std::min(gemm.nr, outs - first);
    const S* from = weight + (g * outs + first) * channels * taps;
    const Buffer<T> block = make_zeros<T>(kChannels * taps * gemm.nr);  // [channel][tap][out]
    for (int64_t c0 = 0; c0 < channels; c0 += kChannels) {
      const int64_t size = std::min(kChannels, channels - c0);
      transpose_block(from + c0 * taps, channels * taps, block.get(), gemm.nr, rows, size * taps);
      for (int64_t j = 0; j < size * taps; ++j) {
        panels.put(g, j % taps * channels + c0 + j / taps, first, block.get() + j * gemm.nr);
      }
    }
  });
  return panels;
}

template <typename E, typename S>
Panels<E> pack_weight_transposed(const DeformConvShape& s, const S* weight) {
  using T = Compute<S>;
  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), channels = s.group_channels(), outs = s.group_out_channels();
  const int64_t columns = taps * channels, steps = ceil_div(outs, kDepthStep<E>);
  Panels<E> panels(gemm, s.groups, outs, columns);
  torch::stable::parallel_for(0, s.groups * steps, 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> row = make_zeros<T>(round_up(columns, gemm.nr));  // [tap][channel]
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g = item / steps, first = item % steps * kDepthStep<E>;
      for (int64_t o = first; o < std::min(first + kDepthStep<E>, outs); ++o) {
        transpose_block(weight + (g * outs + o) * columns, taps, row.get(), channels, channels,
                        taps);
        for (int64_t k = 0; k < columns; k += gemm.nr) panels.put(g, o, k, row.get() + k);
      }
    }
  });
  return panels;
}

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

template <typename S, typename E>
void sample_tile(const SampledImage<S>& image, const Segment& segment, int64_t count,
                 PointsView<Compute<S>> points, E* columns, int64_t ld) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  sample(image, segment, count, points, scratch.get(), columns, ld);
}

template <typename S, typename E>
void sample_tile_with_dots(const SampledImage<S>& image, const Segment& segment, int64_t count,
                           PointsView<Compute<S>> points, const Compute<S>* grad_columns,
                           E* columns, int64_t ld, Compute<S>* dots) {
  const Buffer<S> scratch = make_scratch<S>(segment);
  sample_dots(image, segment, count, points, scratch.get(), grad_columns, columns, ld, dots);
}

template <typename T>
void scatter_tile(T* grad_image, int64_t channels, const Segment& segment, int64_t count,
                  PointsView<T> points, const T* grad_columns, int64_t ld) {
  scatter(grad_image, channels, segment, count, points, grad_columns, ld);
}

#define MMDCN_INSTANTIATE_LOCATE(S)                                                                \
  template void locate_tile<S>(const DeformConvShape&, const S*, const S*, Band, int64_t, int64_t, \
                               Points<Compute<S>>&, int64_t, int64_t);

#define MMDCN_INSTANTIATE(S, E)                                                              \
  template void sample_tile<S, E>(const SampledImage<S>&, const Segment&, int64_t,           \
                                  PointsView<Compute<S>>, E*, int64_t);                      \
  template Panels<E> pack_weight<E, S>(const DeformConvShape&, const S*);                    \
  template Panels<E> pack_weight_transposed<E, S>(const DeformConvShape&, const S*);         \
  template void sample_tile_with_dots<S, E>(const SampledImage<S>&, const Segment&, int64_t, \
                                            PointsView<Compute<S>>, const Compute<S>*, E*,   \
                                            int64_t, Compute<S>*);

MMDCN_INSTANTIATE_LOCATE(double)
MMDCN_INSTANTIATE_LOCATE(float)
MMDCN_INSTANTIATE_LOCATE(BFloat16)
MMDCN_INSTANTIATE_LOCATE(Half)
MMDCN_INSTANTIATE(double, double)
MMDCN_INSTANTIATE(float, float)
MMDCN_INSTANTIATE(BFloat16, float)
MMDCN_INSTANTIATE(BFloat16, BFloat16)
MMDCN_INSTANTIATE(Half, float)
template void scatter_tile<double>(double*, int64_t, const Segment&, int64_t, PointsView<double>,
                                   const double*, int64_t);
template void scatter_tile<float>(float*, int64_t, const Segment&, int64_t, PointsView<float>,
                                  const float*, int64_t);

}  // namespace mmdcn
