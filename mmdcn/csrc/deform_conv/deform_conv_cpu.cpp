// Deformable convolution on the CPU.
//
// Images are channels last here, so that a sampling point reads contiguous rows. Output pixels
// are cut into tiles whose sampled columns stay in cache: [pixel][group][tap][channel of group].
// Every thread owns what it writes, and tiles do not depend on the number of threads, so results
// are the same bits whatever that number.
#include <memory>
#include <vector>

#include "common/bilinear.h"
#include "common/cpu.h"
#include "common/gemm.h"
#include "deform_conv/deform_conv.h"

namespace mmdcn {
namespace {

template <typename T>
using Buffer = std::unique_ptr<T[]>;

// Uninitialised, unlike std::vector; a cache line of slack for reads of whole row blocks.
template <typename T>
Buffer<T> make_buffer(int64_t size) {
  return Buffer<T>(new T[size + 16]);
}

// A run of channels that lies within one group and one deform group.
struct Segment {
  int64_t channel, size, deform_group;
  int64_t column;  // of tap 0 in a row of columns
  int64_t tap_stride;
  int64_t group;
  int64_t group_channel;
};

std::vector<Segment> make_segments(const DeformConvShape& s, int64_t max_size) {
  const int64_t per_group = s.group_channels(), per_deform = s.channels / s.deform_groups;
  std::vector<Segment> segments;
  for (int64_t c = 0; c < s.channels;) {
    const int64_t group = c / per_group, deform_group = c / per_deform;
    int64_t end = std::min((group + 1) * per_group, (deform_group + 1) * per_deform);
    end = std::min(end, c + max_size);
    const int64_t in_group = c - group * per_group;
    segments.push_back({c, end - c, deform_group, group * s.taps() * per_group + in_group,
                        per_group, group, in_group});
    c = end;
  }
  return segments;
}

// The sampling points of one tile, structure of arrays: entry (deform group, tap, pixel).
template <typename T>
struct Points {
  static constexpr int kFields = 7;  // 4 corner weights, ly, lx, mask
  int64_t capacity;
  Buffer<int32_t> index;  // 4 per point
  Buffer<T> value;

  explicit Points(int64_t points)
      : capacity(points),
        index(make_buffer<int32_t>(4 * points)),
        value(make_buffer<T>(kFields * points)) {}
  int32_t* corner(int i) { return index.get() + i * capacity; }
  T* weight(int i) { return value.get() + i * capacity; }
  T* ly() { return value.get() + 4 * capacity; }
  T* lx() { return value.get() + 5 * capacity; }
  T* mask() { return value.get() + 6 * capacity; }
};

// Points of `count` pixels with grid coordinates (y, x) of the tap added to the offsets. The mask
// is folded into the corner weights. Vectorises over pixels.
template <typename T>
MMDCN_INLINE void locate_impl(int64_t count, const T* __restrict ys, const T* __restrict xs, T tap_y,
                              T tap_x, const T* __restrict dy, const T* __restrict dx,
                              const T* __restrict mask, int32_t height, int32_t width,
                              int32_t* __restrict index, T* __restrict value, int64_t capacity) {
  for (int64_t i = 0; i < count; ++i) {
    const Corners<T> p =
        bilinear_corners(ys[i] + tap_y + dy[i], xs[i] + tap_x + dx[i], height, width);
    const T m = mask ? mask[i] : T(1);
    index[i] = p.i00;
    index[capacity + i] = p.i01;
    index[2 * capacity + i] = p.i10;
    index[3 * capacity + i] = p.i11;
    value[i] = p.w00 * m;
    value[capacity + i] = p.w01 * m;
    value[2 * capacity + i] = p.w10 * m;
    value[3 * capacity + i] = p.w11 * m;
    value[4 * capacity + i] = p.ly;
    value[5 * capacity + i] = p.lx;
    value[6 * capacity + i] = m;
  }
}

// out[c] = sum of the four weighted neighbours, for the pixels of a tile and one tap.
template <typename T>
MMDCN_INLINE void sample_impl(int64_t count, const T* image, int64_t row, const T* zeros,
                              int64_t size, const int32_t* index, const T* weight,
                              int64_t capacity, T* out, int64_t ld_out) {
  for (int64_t i = 0; i < count; ++i, out += ld_out) {
    const T* p[4];
    T w[4];
    for (int k = 0; k < 4; ++k) {
      const int32_t at = index[k * capacity + i];
      p[k] = at >= 0 ? image + at * row : zeros;
      w[k] = weight[k * capacity + i];
    }
    const T *__restrict p0 = p[0], *__restrict p1 = p[1], *__restrict p2 = p[2],
                       *__restrict p3 = p[3];
    T* __restrict dst = out;
    for (int64_t c = 0; c < size; ++c) {
      dst[c] = w[0] * p0[c] + w[1] * p1[c] + w[2] * p2[c] + w[3] * p3[c];
    }
  }
}

// As sample_impl, and the dot products of the columns' gradient with the four neighbours, added
// to dots[4 i ..].
template <typename T>
MMDCN_INLINE void sample_dots_impl(int64_t count, const T* image, int64_t row, const T* zeros,
                                   int64_t size, const int32_t* index, const T* weight,
                                   int64_t capacity, const T* grad, T* out, int64_t ld, T* dots) {
  for (int64_t i = 0; i < count; ++i, out += ld, grad += ld, dots += 4) {
    const T* p[4];
    T w[4];
    for (int k = 0; k < 4; ++k) {
      const int32_t at = index[k * capacity + i];
      p[k] = at >= 0 ? image + at * row : zeros;
      w[k] = weight[k * capacity + i];
    }
    const T *__restrict p0 = p[0], *__restrict p1 = p[1], *__restrict p2 = p[2],
                       *__restrict p3 = p[3], *__restrict g = grad;
    T* __restrict dst = out;
    constexpr int kLanes = 64 / sizeof(T);
    T s0[kLanes] = {}, s1[kLanes] = {}, s2[kLanes] = {}, s3[kLanes] = {};
    int64_t c = 0;
    for (; c + kLanes <= size; c += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const T a0 = p0[c + l], a1 = p1[c + l], a2 = p2[c + l], a3 = p3[c + l], gl = g[c + l];
        s0[l] += a0 * gl;
        s1[l] += a1 * gl;
        s2[l] += a2 * gl;
        s3[l] += a3 * gl;
        dst[c + l] = w[0] * a0 + w[1] * a1 + w[2] * a2 + w[3] * a3;
      }
    }
    T t0 = 0, t1 = 0, t2 = 0, t3 = 0;
    for (; c < size; ++c) {
      t0 += p0[c] * g[c];
      t1 += p1[c] * g[c];
      t2 += p2[c] * g[c];
      t3 += p3[c] * g[c];
      dst[c] = w[0] * p0[c] + w[1] * p1[c] + w[2] * p2[c] + w[3] * p3[c];
    }
    for (int l = 0; l < kLanes; ++l) t0 += s0[l], t1 += s1[l], t2 += s2[l], t3 += s3[l];
    dots[0] += t0;
    dots[1] += t1;
    dots[2] += t2;
    dots[3] += t3;
  }
}

// Adds the columns' gradient to the four neighbours of each point.
template <typename T>
MMDCN_INLINE void scatter_impl(int64_t count, T* image, int64_t row, int64_t size,
                               const int32_t* index, const T* weight, int64_t capacity,
                               const T* grad, int64_t ld) {
  for (int64_t i = 0; i < count; ++i, grad += ld) {
    for (int k = 0; k < 4; ++k) {
      const int32_t at = index[k * capacity + i];
      if (at < 0) continue;
      const T w = weight[k * capacity + i];
      T* __restrict dst = image + at * row;
      const T* __restrict g = grad;
      for (int64_t c = 0; c < size; ++c) dst[c] += w * g[c];
    }
  }
}

#define MMDCN_DEFORM_CONV_LOOPS(T)                                                                \
  MMDCN_CLONES void locate(int64_t count, const T* ys, const T* xs, T tap_y, T tap_x,             \
                           const T* dy, const T* dx, const T* mask, int32_t height,               \
                           int32_t width, int32_t* index, T* value, int64_t capacity) {           \
    locate_impl<T>(count, ys, xs, tap_y, tap_x, dy, dx, mask, height, width, index, value,        \
                   capacity);                                                                     \
  }                                                                                               \
  MMDCN_CLONES void sample(int64_t count, const T* image, int64_t row, const T* zeros,            \
                           int64_t size, const int32_t* index, const T* weight,                   \
                           int64_t capacity, T* out, int64_t ld_out) {                            \
    sample_impl<T>(count, image, row, zeros, size, index, weight, capacity, out, ld_out);         \
  }                                                                                               \
  MMDCN_CLONES void sample_dots(int64_t count, const T* image, int64_t row, const T* zeros,       \
                                int64_t size, const int32_t* index, const T* weight,              \
                                int64_t capacity, const T* grad, T* out, int64_t ld, T* dots) {   \
    sample_dots_impl<T>(count, image, row, zeros, size, index, weight, capacity, grad, out, ld,   \
                        dots);                                                                    \
  }                                                                                               \
  MMDCN_CLONES void scatter(int64_t count, T* image, int64_t row, int64_t size,                   \
                            const int32_t* index, const T* weight, int64_t capacity,              \
                            const T* grad, int64_t ld) {                                          \
    scatter_impl<T>(count, image, row, size, index, weight, capacity, grad, ld);                  \
  }

MMDCN_DEFORM_CONV_LOOPS(float)
MMDCN_DEFORM_CONV_LOOPS(double)

template <typename T>
void locate_tile(const DeformConvShape& s, const T* offset, const T* mask, int64_t first,
                 int64_t count, T* ys, T* xs, Points<T>& points, int64_t slot, int64_t slots) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t pixel = first + i;
    ys[i] = static_cast<T>(pixel / s.out_w * s.stride_h - s.pad_h);
    xs[i] = static_cast<T>(pixel % s.out_w * s.stride_w - s.pad_w);
  }
  const int64_t pixels = s.out_pixels();
  for (int64_t d = 0; d < s.deform_groups; ++d) {
    for (int64_t k = 0; k < s.taps(); ++k) {
      const int64_t point = d * s.taps() + k;
      const T* dy = offset + 2 * point * pixels + first;
      locate(count, ys, xs, static_cast<T>(k / s.kernel_w * s.dilation_h),
             static_cast<T>(k % s.kernel_w * s.dilation_w), dy, dy + pixels,
             mask ? mask + point * pixels + first : nullptr, static_cast<int32_t>(s.height),
             static_cast<int32_t>(s.width), points.corner(0) + point * slots + slot,
             points.weight(0) + point * slots + slot, points.capacity);
    }
  }
}

// Packs the columns of a [depth][cols] matrix, read through `at(k, j)`, into panels.
template <typename T, typename F>
Buffer<T> pack_panels(int64_t depth, int64_t cols, int64_t nr, const F& at) {
  const int64_t panels = ceil_div(cols, nr);
  Buffer<T> packed = make_buffer<T>(panels * nr * depth);
  T* base = packed.get();
  parallel_items(panels, [&](int64_t p) {
    T* out = base + p * nr * depth;
    for (int64_t k = 0; k < depth; ++k, out += nr) {
      for (int64_t j = 0; j < nr; ++j) out[j] = p * nr + j < cols ? at(k, p * nr + j) : T(0);
    }
  });
  return packed;
}

// Elements of columns per tile: about half of a core's second-level cache.
constexpr int64_t kTileElements = 128 * 1024;
// Elements of columns of a backward tile, shared by all threads.
constexpr int64_t kBackwardElements = 1024 * 1024;

template <typename T>
Tensor channels_last_copy(const Tensor& input, ScalarType type) {
  if (is_channels_last(input)) return cast(input, type);
  const Tensor source = contiguous(input, type);
  Tensor copy = torch::stable::empty(source.sizes(), type, std::nullopt, std::nullopt, std::nullopt,
                                     torch::headeronly::MemoryFormat::ChannelsLast);
  transpose_batch(source.const_data_ptr<T>(), copy.mutable_data_ptr<T>(), source.size(0),
                  source.size(1), source.size(2) * source.size(3));
  return copy;
}

Tensor empty_image(std::vector<int64_t> sizes, ScalarType type, bool channels_last) {
  return torch::stable::empty(sizes, type, std::nullopt, std::nullopt, std::nullopt,
                              channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                            : torch::headeronly::MemoryFormat::Contiguous);
}

template <typename T>
Tensor forward(const DeformConvShape& s, const Tensor& input_any, const Tensor& offset_any,
               const std::optional<Tensor>& mask_any, const Tensor& weight_any,
               const std::optional<Tensor>& bias_any, ScalarType type) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last_copy<T>(input_any, type);
  const Tensor offset = contiguous(offset_any, type);
  const Tensor weight = contiguous(weight_any, type);
  std::optional<Tensor> mask, bias;
  if (mask_any) mask = contiguous(*mask_any, type);
  if (bias_any) bias = contiguous(*bias_any, type);
  Tensor output = empty_image({s.batch, s.out_channels, s.out_h, s.out_w}, type, channels_last);

  const T* input_ptr = input.const_data_ptr<T>();
  const T* offset_ptr = offset.const_data_ptr<T>();
  const T* mask_ptr = mask ? mask->const_data_ptr<T>() : nullptr;
  const T* weight_ptr = weight.const_data_ptr<T>();
  const T* bias_ptr = bias ? bias->const_data_ptr<T>() : nullptr;
  T* output_ptr = output.mutable_data_ptr<T>();

  const GemmKernel<T>& gemm = gemm_kernel<T>();
  const int64_t taps = s.taps(), pixels = s.out_pixels();
  const int64_t group_in = s.group_channels(), group_out = s.group_out_channels();
  const int64_t depth = taps * group_in, columns = s.groups * depth;
  const int64_t panel_size = round_up(group_out, gemm.nr) * depth;
  const std::vector<Segment> segments = make_segments(s, s.channels);
  const std::vector<T> zeros(s.channels, T(0));

  std::vector<Buffer<T>> panels;
  for (int64_t g = 0; g < s.groups; ++g) {
    const T* w = weight_ptr + g * group_out * group_in * taps;
    panels.push_back(pack_panels<T>(depth, group_out, gemm.nr, [&](int64_t k, int64_t o) {
      return w[(o * group_in + k % group_in) * taps + k / group_in];
    }));
  }
  (void)panel_size;

  int64_t tile = std::clamp(kTileElements / columns / gemm.mr, int64_t{2}, int64_t{16}) * gemm.mr;
  tile = std::min(tile, round_up(pixels, gemm.mr));
  const int64_t tiles = ceil_div(pixels, tile);
  torch::stable::parallel_for(0, s.batch * tiles, 1, [&](int64_t begin, int64_t end) {
    Buffer<T> col = make_buffer<T>(tile * columns), out = make_buffer<T>(tile * s.out_channels);
    Buffer<T> grid = make_buffer<T>(2 * tile);
    Points<T> points(s.deform_groups * taps * tile);
    std::fill_n(col.get(), tile * columns, T(0));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / tiles, first = item % tiles * tile;
      const int64_t count = std::min(tile, pixels - first);
      locate_tile(s, offset_ptr + n * s.deform_groups * 2 * taps * pixels,
                  mask_ptr ? mask_ptr + n * s.deform_groups * taps * pixels : nullptr, first, count,
                  grid.get(), grid.get() + tile, points, 0, tile);
      const T* image = input_ptr + n * s.height * s.width * s.channels;
      for (const Segment& seg : segments) {
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t at = (seg.deform_group * taps + k) * tile;
          sample(count, image + seg.channel, s.channels, zeros.data(), seg.size,
                 points.corner(0) + at, points.weight(0) + at, points.capacity,
                 col.get() + seg.column + k * seg.tap_stride, columns);
        }
      }
      T* dst = channels_last ? output_ptr + (n * pixels + first) * s.out_channels : out.get();
      if (bias_ptr) {
        for (int64_t i = 0; i < count; ++i) {
          std::copy_n(bias_ptr, s.out_channels, dst + i * s.out_channels);
        }
      }
      for (int64_t g = 0; g < s.groups; ++g) {
        gemm_panels(gemm, count, group_out, depth, col.get() + g * depth, columns, panels[g].get(),
                    dst + g * group_out, s.out_channels, bias_ptr != nullptr);
      }
      if (!channels_last) {
        transpose_block(dst, s.out_channels, output_ptr + n * s.out_channels * pixels + first,
                        pixels, count, s.out_channels);
      }
    }
  });
  return output;
}

template <typename T>
struct Gradients {
  Tensor input, offset, mask, weight, bias;
};

template <typename T>
Gradients<T> backward(const DeformConvShape& s, const Tensor& grad_any, const Tensor& input_any,
                      const Tensor& offset_any, const std::optional<Tensor>& mask_any,
                      const Tensor& weight_any, ScalarType type, bool need_input, bool need_offset,
                      bool need_weight) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor grad_output = contiguous(grad_any, type);
  const Tensor input = channels_last_copy<T>(input_any, type);
  const Tensor offset = contiguous(offset_any, type);
  const Tensor weight = contiguous(weight_any, type);
  std::optional<Tensor> mask;
  if (mask_any) mask = contiguous(*mask_any, type);

  const GemmKernel<T>& gemm = gemm_kernel<T>();
  const int64_t taps = s.taps(), pixels = s.out_pixels(), outs = s.out_channels;
  const int64_t group_in = s.group_channels(), group_out = s.group_out_channels();
  const int64_t depth = taps * group_in, columns = s.groups * depth;
  const int64_t point_groups = s.deform_groups * taps;

  Gradients<T> grads{torch::stable::empty({0}, type), torch::stable::empty({0}, type),
                     torch::stable::empty({0}, type), torch::stable::empty({0}, type),
                     torch::stable::empty({0}, type)};
  Tensor grad_image = grads.input;
  if (need_input) {
    grad_image = empty_image({s.batch, s.channels, s.height, s.width}, type, true);
    torch::stable::zero_(grad_image);
  }
  if (need_offset) {
    grads.offset = torch::stable::empty(offset.sizes(), type);
    if (mask) grads.mask = torch::stable::empty(mask->sizes(), type);
  }
  // [group][out channel][tap][channel] while it is accumulated.
  Buffer<T> grad_weight = make_buffer<T>(need_weight ? outs * depth : 0);
  if (need_weight) std::fill_n(grad_weight.get(), outs * depth, T(0));

  const T* grad_ptr = grad_output.const_data_ptr<T>();
  const T* input_ptr = input.const_data_ptr<T>();
  const T* offset_ptr = offset.const_data_ptr<T>();
  const T* mask_ptr = mask ? mask->const_data_ptr<T>() : nullptr;
  const T* weight_ptr = weight.const_data_ptr<T>();
  T* grad_image_ptr = need_input ? grad_image.mutable_data_ptr<T>() : nullptr;
  T* grad_offset_ptr = need_offset ? grads.offset.template mutable_data_ptr<T>() : nullptr;
  T* grad_mask_ptr = need_offset && mask ? grads.mask.template mutable_data_ptr<T>() : nullptr;

  std::vector<Buffer<T>> panels;
  for (int64_t g = 0; g < s.groups; ++g) {
    const T* w = weight_ptr + g * group_out * group_in * taps;
    panels.push_back(pack_panels<T>(group_out, depth, gemm.nr, [&](int64_t o, int64_t k) {
      return w[(o * group_in + k % group_in) * taps + k / group_in];
    }));
  }

  // A tile is worked on by all threads: first by blocks of pixels, then by blocks of channels.
  const int64_t block = 4 * gemm.mr;
  int64_t tile = std::clamp(kBackwardElements / columns / block, int64_t{1}, int64_t{64}) * block;
  tile = std::min(tile, round_up(pixels, block));
  Buffer<T> col = make_buffer<T>(tile * columns), grad_col = make_buffer<T>(tile * columns);
  const int64_t rows_padded = round_up(group_out, gemm.mr);
  Buffer<T> grad_tile = make_buffer<T>(s.groups * rows_padded * tile);
  std::fill_n(grad_tile.get(), s.groups * rows_padded * tile, T(0));
  Points<T> points(point_groups * tile);
  const std::vector<Segment> segments = make_segments(s, s.channels);
  const std::vector<Segment> strips = make_segments(s, gemm.nr);
  const std::vector<T> zeros(s.channels, T(0));

  for (int64_t n = 0; n < s.batch; ++n) {
    const T* image = input_ptr + n * s.height * s.width * s.channels;
    const T* grad_n = grad_ptr + n * outs * pixels;
    for (int64_t first = 0; first < pixels; first += tile) {
      const int64_t tile_count = std::min(tile, pixels - first);
      parallel_items(ceil_div(tile_count, block), [&](int64_t item) {
        const int64_t start = item * block, count = std::min(block, tile_count - start);
        T grid[2 * 64];
        Buffer<T> rows = make_buffer<T>(block * outs);
        transpose_block(grad_n + first + start, pixels, rows.get(), outs, outs, count);
        for (int64_t i = count; i < block; ++i) std::fill_n(rows.get() + i * outs, outs, T(0));
        for (int64_t o = 0; o < outs; ++o) {
          const int64_t row = o / group_out * rows_padded + o % group_out;
          std::copy_n(grad_n + o * pixels + first + start, count,
                      grad_tile.get() + row * tile + start);
        }
        T* g_col = grad_col.get() + start * columns;
        for (int64_t g = 0; g < s.groups; ++g) {
          gemm_panels(gemm, count, depth, group_out, rows.get() + g * group_out, outs,
                      panels[g].get(), g_col + g * depth, columns, false);
        }
        locate_tile(s, offset_ptr + n * 2 * point_groups * pixels,
                    mask_ptr ? mask_ptr + n * point_groups * pixels : nullptr, first + start, count,
                    grid, grid + 64, points, start, tile);
        Buffer<T> dots = make_buffer<T>(point_groups * block * 4);
        std::fill_n(dots.get(), point_groups * block * 4, T(0));
        for (const Segment& seg : segments) {
          for (int64_t k = 0; k < taps; ++k) {
            const int64_t point = seg.deform_group * taps + k, at = point * tile + start;
            const int64_t column = seg.column + k * seg.tap_stride;
            sample_dots(count, image + seg.channel, s.channels, zeros.data(), seg.size,
                        points.corner(0) + at, points.weight(0) + at, points.capacity,
                        g_col + column, col.get() + start * columns + column, columns,
                        dots.get() + point * block * 4);
          }
        }
        if (!need_offset) return;
        for (int64_t point = 0; point < point_groups; ++point) {
          const T* d = dots.get() + point * block * 4;
          T* gy = grad_offset_ptr + (n * 2 * point_groups + 2 * point) * pixels + first + start;
          for (int64_t i = 0; i < count; ++i, d += 4) {
            const int64_t at = point * tile + start + i;
            const T ly = points.ly()[at], lx = points.lx()[at], m = points.mask()[at];
            gy[i] = m * bilinear_grad_y(lx, d[0], d[1], d[2], d[3]);
            gy[pixels + i] = m * bilinear_grad_x(ly, d[0], d[1], d[2], d[3]);
            if (grad_mask_ptr) {
              const T hy = T(1) - ly, hx = T(1) - lx;
              grad_mask_ptr[(n * point_groups + point) * pixels + first + start + i] =
                  hy * (hx * d[0] + lx * d[1]) + ly * (hx * d[2] + lx * d[3]);
            }
          }
        }
      });
      if (!need_weight && !need_input) continue;
      parallel_items(static_cast<int64_t>(strips.size()), [&](int64_t item) {
        const Segment& strip = strips[item];
        Buffer<T> panel = make_buffer<T>(tile * gemm.nr);
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t column = strip.column + k * strip.tap_stride;
          if (need_weight) {
            pack_panel(col.get() + column, columns, tile_count, strip.size, gemm.nr, panel.get());
            gemm_panels(gemm, group_out, strip.size, tile_count,
                        grad_tile.get() + strip.group * rows_padded * tile, tile, panel.get(),
                        grad_weight.get() + strip.group * group_out * depth + k * group_in +
                            strip.group_channel,
                        depth, true);
          }
          if (need_input) {
            const int64_t at = (strip.deform_group * taps + k) * tile;
            scatter(tile_count, grad_image_ptr + n * s.height * s.width * s.channels + strip.channel,
                    s.channels, strip.size, points.corner(0) + at, points.weight(0) + at,
                    points.capacity, grad_col.get() + column, columns);
          }
        }
      });
    }
  }

  if (need_input) {
    grads.input = grad_image;
    if (!channels_last) {
      grads.input = empty_image({s.batch, s.channels, s.height, s.width}, type, false);
      transpose_batch(grad_image_ptr, grads.input.template mutable_data_ptr<T>(), s.batch,
                      s.height * s.width, s.channels);
    }
  }
  if (need_weight) {
    grads.weight = torch::stable::empty(weight.sizes(), type);
    T* dst = grads.weight.template mutable_data_ptr<T>();
    transpose_batch(grad_weight.get(), dst, outs, taps, group_in);
    grads.bias = torch::stable::empty({outs}, type);
    T* grad_bias = grads.bias.template mutable_data_ptr<T>();
    parallel_items(outs, [&](int64_t o) {
      double sum = 0;
      for (int64_t n = 0; n < s.batch; ++n) {
        const T* g = grad_ptr + (n * outs + o) * pixels;
        for (int64_t i = 0; i < pixels; ++i) sum += g[i];
      }
      grad_bias[o] = static_cast<T>(sum);
    });
  }
  return grads;
}

Tensor deform_conv2d_cpu(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                         const Tensor& weight, std::optional<Tensor> bias,
                         std::vector<int64_t> stride, std::vector<int64_t> padding,
                         std::vector<int64_t> dilation, int64_t groups, int64_t deform_groups) {
  const DeformConvShape s = deform_conv_shape(input, offset, mask, weight, bias, stride, padding,
                                              dilation, groups, deform_groups);
  const ScalarType type = compute_type(input);
  const Tensor output = type == ScalarType::Double
                            ? forward<double>(s, input, offset, mask, weight, bias, type)
                            : forward<float>(s, input, offset, mask, weight, bias, type);
  return cast(output, input.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward_cpu(
    const Tensor& grad_output, const Tensor& input, const Tensor& offset,
    std::optional<Tensor> mask, const Tensor& weight, std::vector<int64_t> stride,
    std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
    int64_t deform_groups, bool need_input, bool need_offset, bool need_weight) {
  const DeformConvShape s = deform_conv_shape(input, offset, mask, weight, std::nullopt, stride,
                                              padding, dilation, groups, deform_groups);
  check_shape(grad_output, "grad_output", {s.batch, s.out_channels, s.out_h, s.out_w});
  check_like(grad_output, "grad_output", input, "input");
  const ScalarType type = compute_type(input), own = input.scalar_type();
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    Gradients<T> g = backward<T>(s, grad_output, input, offset, mask, weight, type, need_input,
                                 need_offset, need_weight);
    return std::make_tuple(cast(g.input, own), cast(g.offset, own), cast(g.mask, own),
                           cast(g.weight, own), cast(g.bias, own));
  };
  return type == ScalarType::Double ? run(double{}) : run(float{});
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&mmdcn::deform_conv2d_cpu));
  m.impl("deform_conv2d_backward", TORCH_BOX(&mmdcn::deform_conv2d_backward_cpu));
}
