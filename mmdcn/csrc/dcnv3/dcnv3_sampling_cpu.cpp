// The sampling of dcnv3 and dcnv4 on the CPU.
//
// Points (coordinates, corner weights, softmax) are computed for a block of pixels at once, with
// the taps of all its pixels in one vectorised loop; then each point reads four rows of channels.
// Threads own pixels, and groups of images for the input's gradient, so nothing is atomic and the
// sums do not depend on the number of threads.
#include "common/bilinear.h"
#include "common/cpu.h"
#include "common/math.h"
#include "common/simd.h"
#include "dcnv3/dcnv3.h"

namespace mmdcn {
namespace {

template <int N>
using Int = std::integral_constant<int, N>;

constexpr int64_t kBlockPoints = 288;  // their fields fit a first-level cache

// The points of a block as a structure of arrays, entry (pixel, group, tap).
template <typename T>
struct Block {
  int64_t capacity;
  Buffer<int64_t> row;  // of 4 corners: offset of the pixel's channels in the image
  Buffer<T> value;      // see Field

  explicit Block(int64_t points)
      : capacity(points), row(make_buffer<int64_t>(4 * points)), value(make_buffer<T>(9 * points)) {}
  T* field(int64_t i) const { return value.get() + i * capacity; }
};

// Corner weights include the tap's.
enum Field { kWeight00, kWeight01, kWeight10, kWeight11, kLy, kLx, kTapWeight, kY, kX };

// An image, `stride` elements from pixel to pixel, and a row of zeros that stands in for missing
// neighbours, found at offset `missing`.
template <typename S>
struct Image {
  const S* data;
  int32_t stride;
  int64_t missing;

  Image(const S* image, int64_t stride, const S* zeros)
      : data(image),
        stride(static_cast<int32_t>(stride)),
        missing((reinterpret_cast<intptr_t>(zeros) - reinterpret_cast<intptr_t>(image)) /
                static_cast<intptr_t>(sizeof(S))) {}
  const S* row(int64_t offset) const {
    return reinterpret_cast<const S*>(reinterpret_cast<intptr_t>(data) +
                                      offset * static_cast<intptr_t>(sizeof(S)));
  }
};

// Kernel grid, relative to the output position times the stride: one entry a tap.
template <typename T>
struct Grid {
  Buffer<T> x, y;
  T scale;

  explicit Grid(const DCNv3Shape& s)
      : x(make_buffer<T>(s.taps())), y(make_buffer<T>(s.taps())), scale(static_cast<T>(s.offset_scale)) {
    const int64_t half_w = s.dilation_w * (s.kernel_w - 1) / 2;
    const int64_t half_h = s.dilation_h * (s.kernel_h - 1) / 2;
    int64_t tap = 0;
    for (int64_t i = 0; i < s.kernel_w; ++i) {
      for (int64_t j = 0; j < s.kernel_h; ++j) {
        if (s.remove_center && 2 * i + 1 == s.kernel_w && 2 * j + 1 == s.kernel_h) continue;
        x[tap] = half_w - s.pad_w + (i * s.dilation_w - half_w) * scale;
        y[tap] = half_h - s.pad_h + (j * s.dilation_h - half_h) * scale;
        ++tap;
      }
    }
  }
};

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

// Pixels [first, first + count) of image n, groups [group, group + groups). kTaps is the number of
// taps when it is known to the compiler, else 0.
template <int kTaps, typename S, typename T>
MMDCN_INLINE void locate_impl(const DCNv3Shape& s, const Grid<T>& grid,
                              const DCNv3Points<const S>& points, bool with_softmax,
                              const Image<S>& image, int64_t n, int64_t first, int64_t count,
                              int64_t group, int64_t groups, const Block<T>& block) {
  const int64_t taps = kTaps ? kTaps : s.taps();
  T *const ys = block.field(kY), *const xs = block.field(kX), *const ws = block.field(kTapWeight);
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t pixel = first + i, row = n * s.out_pixels() + pixel;
    const T base_y = static_cast<T>(pixel / s.out_w * s.stride_h);
    const T base_x = static_cast<T>(pixel % s.out_w * s.stride_w);
    for (int64_t g = group; g < group + groups; ++g, at += taps) {
      load_taps(taps, points.offset + row * points.offset_pixel + g * points.offset_group,
                points.weight + row * points.weight_pixel + g * points.weight_group, grid.y.get(),
                grid.x.get(), base_y, base_x, grid.scale, ys + at, xs + at, ws + at);
      if (with_softmax) softmax(taps, ws + at);
    }
  }
  const int32_t height = static_cast<int32_t>(s.height), width = static_cast<int32_t>(s.width);
  const int64_t stride = block.capacity, missing = image.missing;
  const int32_t pixel_stride = image.stride;
  int64_t* __restrict rows = block.row.get();
  T* __restrict value = block.value.get();
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < at; ++j) {
    const T w = value[kTapWeight * stride + j];
    const Corners<T> p =
        bilinear_corners(value[kY * stride + j], value[kX * stride + j], height, width);
    const auto offset = [&](int32_t index) __attribute__((always_inline)) {
      return index < 0 ? missing : static_cast<int64_t>(index) * pixel_stride;
    };
    rows[j] = offset(p.i00);
    rows[stride + j] = offset(p.i01);
    rows[2 * stride + j] = offset(p.i10);
    rows[3 * stride + j] = offset(p.i11);
    value[j] = p.w00 * w;
    value[stride + j] = p.w01 * w;
    value[2 * stride + j] = p.w10 * w;
    value[3 * stride + j] = p.w11 * w;
    value[kLy * stride + j] = p.ly;
    value[kLx * stride + j] = p.lx;
  }
}

// One (pixel, group): kVectors vectors of N channels from `channel` on.
template <int kVectors, int N, typename S, typename T>
MMDCN_INLINE void aggregate_chunk(int64_t taps, const Image<S>& image, int64_t channel,
                                  const int64_t* rows, const T* weight, int64_t stride, S* out) {
  Vec<T, N> sum[4][kVectors] = {};  // a chain of additions per corner
  for (int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const S* row = image.row(rows[corner * stride + k] + channel);
      const T w = weight[corner * stride + k];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[corner][v] += w * load_vec<N>(row + v * N);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    store_vec<N>(out + channel + v * N, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
  }
}

// Calls f(vectors, lanes, channel) for chunks that cover channels [begin, end).
template <int kLanes, typename F>
MMDCN_INLINE void for_chunks(int64_t begin, int64_t end, const F& f) {
  int64_t c = begin;
  const auto run = [&](auto vectors, auto lanes) __attribute__((always_inline)) {
    constexpr int kSize = vectors * lanes;
    for (; c + kSize <= end; c += kSize) f(vectors, lanes, c);
  };
  run(Int<32 / kLanes>{}, Int<kLanes>{});
  run(Int<16 / kLanes>{}, Int<kLanes>{});
  run(Int<1>{}, Int<4>{});
  run(Int<1>{}, Int<1>{});
}

template <int kTaps, typename S, typename T>
MMDCN_INLINE void aggregate_impl(const DCNv3Shape& s, const Image<S>& image, int64_t count,
                                 const Block<T>& block, S* out) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i, out += s.channels) {
    for (int64_t g = 0; g < s.groups; ++g, at += taps) {
      const int64_t* rows = block.row.get() + at;
      const T* weight = block.value.get() + at;
      for_chunks<kLanes<S>>(
          g * size, (g + 1) * size,
          [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
            aggregate_chunk<vectors, lanes>(taps, image, c, rows, weight, block.capacity, out);
          });
    }
  }
}

// dots[4 j + corner]: the dot product of the output gradient with that neighbour of point j.
template <int kTaps, typename S, typename T>
MMDCN_INLINE void dots_impl(const DCNv3Shape& s, const S* grad_output, const Image<S>& image,
                            int64_t count, const Block<T>& block, T* grad, T* dots) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  const int64_t stride = block.capacity;
  for (int64_t i = 0; i < count * s.groups; ++i, dots += 4 * taps) {
    const int64_t channel = i % s.groups * size;
    convert_copy(grad_output + i * size, size, grad);
    const int64_t* rows = block.row.get() + i * taps;
    for (int64_t k = 0; k < taps; ++k) {
      Vec<T, 4> sum = {};
      for_chunks<kLanes<S>>(
          0, size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
            for (int v = 0; v < vectors; ++v, c += lanes) {
              const Vec<T, lanes> g = load_vec<lanes>(grad + c);
              Vec<T, lanes> product[4];
#pragma GCC unroll 4
              for (int corner = 0; corner < 4; ++corner) {
                product[corner] =
                    g * load_vec<lanes>(image.row(rows[corner * stride + k] + channel) + c);
              }
              sum += sum_lanes_of_four<T, lanes>(product);
            }
          });
      store_vec<4>(dots + 4 * k, sum);
    }
  }
}

// Adds the output gradient of groups [group, group + groups) to the neighbours of each point.
// grad_groups: images of one group each, from `group` on.
template <int kTaps, typename S, typename T>
MMDCN_INLINE void scatter_impl(const DCNv3Shape& s, int64_t group, int64_t groups,
                               const S* grad_output, int64_t missing, int64_t count,
                               const Block<T>& block, T* grad_groups, T* grad) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  const int64_t stride = block.capacity, group_size = s.height * s.width * size;
  for (int64_t i = 0; i < count * groups; ++i) {
    const int64_t g_index = i % groups;
    convert_copy(grad_output + i / groups * s.channels + (group + g_index) * size, size, grad);
    const int64_t* rows = block.row.get() + i * taps;
    const T* weight = block.value.get() + i * taps;
    T* const image = grad_groups + g_index * group_size;
    for_chunks<kLanes<T>>(
        0, size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
          for (int v = 0; v < vectors; ++v, c += lanes) {
            const Vec<T, lanes> g = load_vec<lanes>(grad + c);
            for (int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
              for (int corner = 0; corner < 4; ++corner) {
                const int64_t row = rows[corner * stride + k];
                if (row == missing) continue;
                T* const out = image + row + c;
                store_vec<lanes>(out, load_vec<lanes>(out) + weight[corner * stride + k] * g);
              }
            }
          }
        });
  }
}

// The gradients of offsets, (dx, dy) pairs, and tap weights from the dot products.
template <typename T>
MMDCN_INLINE void point_gradients_impl(int64_t count, T scale, const T* __restrict dots,
                                       const T* __restrict value, int64_t stride,
                                       T* __restrict grad_offset, T* __restrict grad_weight) {
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) {
    const T d0 = dots[4 * j], d1 = dots[4 * j + 1], d2 = dots[4 * j + 2], d3 = dots[4 * j + 3];
    const T ly = value[kLy * stride + j], lx = value[kLx * stride + j];
    const T w = value[kTapWeight * stride + j] * scale;
    const T hy = T(1) - ly, hx = T(1) - lx;
    grad_offset[2 * j] = w * bilinear_grad_x(ly, d0, d1, d2, d3);
    grad_offset[2 * j + 1] = w * bilinear_grad_y(lx, d0, d1, d2, d3);
    grad_weight[j] = hy * (hx * d0 + lx * d1) + ly * (hx * d2 + lx * d3);
  }
}

// grad_weight of the softmax's input from that of its output.
template <typename T>
void softmax_gradient(int64_t taps, const T* weight, T* grad_weight) {
  T mean = 0;
  for (int64_t k = 0; k < taps; ++k) mean += weight[k] * grad_weight[k];
  for (int64_t k = 0; k < taps; ++k) grad_weight[k] = weight[k] * (grad_weight[k] - mean);
}

// Clones need plain functions: one set per type.
#define MMDCN_DCNV3_LOOPS(S)                                                                       \
  MMDCN_CLONES void locate(const DCNv3Shape& s, const Grid<Compute<S>>& grid,                      \
                           const DCNv3Points<const S>& points, bool softmax,                       \
                           const Image<S>& image, int64_t n, int64_t first, int64_t count,         \
                           int64_t group, int64_t groups, const Block<Compute<S>>& block) {        \
    if (s.taps() == 9) {                                                                           \
      locate_impl<9>(s, grid, points, softmax, image, n, first, count, group, groups, block);      \
    } else {                                                                                       \
      locate_impl<0>(s, grid, points, softmax, image, n, first, count, group, groups, block);      \
    }                                                                                              \
  }                                                                                                \
  MMDCN_CLONES void aggregate(const DCNv3Shape& s, const Image<S>& image, int64_t count,           \
                              const Block<Compute<S>>& block, S* out) {                            \
    if (s.taps() == 9) {                                                                           \
      aggregate_impl<9>(s, image, count, block, out);                                              \
    } else {                                                                                       \
      aggregate_impl<0>(s, image, count, block, out);                                              \
    }                                                                                              \
  }                                                                                                \
  MMDCN_CLONES void dot_products(const DCNv3Shape& s, const S* grad_output, const Image<S>& image, \
                                 int64_t count, const Block<Compute<S>>& block,                    \
                                 Compute<S>* grad, Compute<S>* dots) {                             \
    if (s.taps() == 9) {                                                                           \
      dots_impl<9>(s, grad_output, image, count, block, grad, dots);                               \
    } else {                                                                                       \
      dots_impl<0>(s, grad_output, image, count, block, grad, dots);                               \
    }                                                                                              \
  }                                                                                                \
  MMDCN_CLONES void scatter(const DCNv3Shape& s, int64_t group, int64_t groups,                    \
                            const S* grad_output, int64_t missing, int64_t count,                  \
                            const Block<Compute<S>>& block, Compute<S>* grad_groups,               \
                            Compute<S>* grad) {                                                    \
    if (s.taps() == 9) {                                                                           \
      scatter_impl<9>(s, group, groups, grad_output, missing, count, block, grad_groups, grad);    \
    } else {                                                                                       \
      scatter_impl<0>(s, group, groups, grad_output, missing, count, block, grad_groups, grad);    \
    }                                                                                              \
  }

#define MMDCN_GRADIENT_LOOPS(T)                                                                    \
  MMDCN_CLONES void point_gradients(int64_t count, T scale, const T* dots, const T* value,         \
                                    int64_t stride, T* grad_offset, T* grad_weight) {              \
    point_gradients_impl(count, scale, dots, value, stride, grad_offset, grad_weight);             \
  }

MMDCN_DCNV3_LOOPS(double)
MMDCN_DCNV3_LOOPS(float)
MMDCN_DCNV3_LOOPS(BFloat16)
MMDCN_DCNV3_LOOPS(Half)
MMDCN_GRADIENT_LOOPS(double)
MMDCN_GRADIENT_LOOPS(float)

}  // namespace

template <typename S>
void dcnv3_forward_cpu(const DCNv3Shape& s, const S* input, const DCNv3Points<const S>& points,
                       bool softmax, S* output) {
  using T = Compute<S>;
  const Grid<T> grid(s);
  const Buffer<S> zeros = make_zeros<S>(s.channels);
  const int64_t per_pixel = s.groups * s.taps(), pixels = s.out_pixels();
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / per_pixel);
  const int64_t blocks = ceil_div(pixels, block_pixels);
  torch::stable::parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Block<T> block(block_pixels * per_pixel);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * block_pixels;
      const int64_t count = std::min(block_pixels, pixels - first);
      const Image<S> image(input + n * s.height * s.width * s.channels, s.channels, zeros.get());
      locate(s, grid, points, softmax, image, n, first, count, 0, s.groups, block);
      aggregate(s, image, count, block, output + (n * pixels + first) * s.channels);
    }
  });
}

namespace {

// Gradients of the points; threads own pixels.
template <typename S>
void backward_points(const DCNv3Shape& s, const Grid<Compute<S>>& grid, const S* zeros,
                     const S* grad_output, const S* input, const DCNv3Points<const S>& points,
                     bool softmax, const DCNv3Points<S>& grad_points) {
  using T = Compute<S>;
  const int64_t taps = s.taps(), per_pixel = s.groups * taps, pixels = s.out_pixels();
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / per_pixel);
  const int64_t blocks = ceil_div(pixels, block_pixels), capacity = block_pixels * per_pixel;
  torch::stable::parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Block<T> block(capacity);
    const Buffer<T> grad = make_buffer<T>(s.group_channels());
    const Buffer<T> dots = make_buffer<T>(4 * capacity);
    const Buffer<T> grad_offset = make_buffer<T>(2 * capacity);
    const Buffer<T> grad_weight = make_buffer<T>(capacity);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * block_pixels;
      const int64_t count = std::min(block_pixels, pixels - first);
      const Image<S> image(input + n * s.height * s.width * s.channels, s.channels, zeros);
      locate(s, grid, points, softmax, image, n, first, count, 0, s.groups, block);
      dot_products(s, grad_output + (n * pixels + first) * s.channels, image, count, block,
                   grad.get(), dots.get());
      point_gradients(count * per_pixel, grid.scale, dots.get(), block.value.get(), block.capacity,
                      grad_offset.get(), grad_weight.get());
      for (int64_t i = 0; i < count * s.groups; ++i) {
        const int64_t at = i * taps, row = n * pixels + first + i / s.groups, g = i % s.groups;
        if (softmax) softmax_gradient(taps, block.field(kTapWeight) + at, grad_weight.get() + at);
        convert_copy(
            grad_offset.get() + 2 * at, 2 * taps,
            grad_points.offset + row * grad_points.offset_pixel + g * grad_points.offset_group);
        convert_copy(
            grad_weight.get() + at, taps,
            grad_points.weight + row * grad_points.weight_pixel + g * grad_points.weight_group);
      }
    }
  });
}

// Gradient of the input; threads own groups of images. Each group is summed in an image of its own:
// side by side in memory, the groups of two threads would fight over the same cache lines.
template <typename S>
void backward_input(const DCNv3Shape& s, const Grid<Compute<S>>& grid, const S* zeros,
                    const S* grad_output, const S* input, const DCNv3Points<const S>& points,
                    bool softmax, S* grad_input) {
  using T = Compute<S>;
  const int64_t taps = s.taps(), pixels = s.out_pixels(), in_pixels = s.height * s.width;
  const int64_t size = s.group_channels(), group_size = in_pixels * size;
  Tensor sums = torch::stable::empty({s.batch * s.groups, in_pixels, size},
                                     std::is_same_v<T, double> ? ScalarType::Double
                                                               : ScalarType::Float);
  torch::stable::zero_(sums);
  T* const sums_ptr = sums.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, s.batch * s.groups, 1, [&](int64_t begin, int64_t end) {
    const Block<T> block(std::max(kBlockPoints, s.groups * taps));
    const Buffer<T> grad = make_buffer<T>(size);
    for (int64_t item = begin; item < end;) {  // the groups of an image that are this thread's
      const int64_t first_item = item, n = item / s.groups, group = item % s.groups;
      const int64_t groups = std::min(s.groups - group, end - item);
      item += groups;
      const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / (groups * taps));
      const Image<S> image(input, size, zeros);
      for (int64_t first = 0; first < pixels; first += block_pixels) {
        const int64_t count = std::min(block_pixels, pixels - first);
        locate(s, grid, points, softmax, image, n, first, count, group, groups, block);
        scatter(s, group, groups, grad_output + (n * pixels + first) * s.channels, image.missing,
                count, block, sums_ptr + first_item * group_size, grad.get());
      }
    }
  });
  parallel_items(s.batch * s.height, [&](int64_t row) {
    const int64_t n = row / s.height, first = row % s.height * s.width;
    for (int64_t g = 0; g < s.groups; ++g) {
      const T* from = sums_ptr + (n * s.groups + g) * group_size + first * size;
      S* to = grad_input + (n * in_pixels + first) * s.channels + g * size;
      for (int64_t x = 0; x < s.width; ++x) {
        convert_copy(from + x * size, size, to + x * s.channels);
      }
    }
  });
}

}  // namespace

template <typename S>
void dcnv3_backward_cpu(const DCNv3Shape& s, const S* grad_output, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, S* grad_input,
                        const DCNv3Points<S>& grad_points) {
  const Grid<Compute<S>> grid(s);
  const Buffer<S> zeros = make_zeros<S>(s.channels);
  backward_points(s, grid, zeros.get(), grad_output, input, points, softmax, grad_points);
  if (grad_input) {
    backward_input(s, grid, zeros.get(), grad_output, input, points, softmax, grad_input);
  }
}

#define MMDCN_INSTANTIATE(S)                                                                      \
  template void dcnv3_forward_cpu<S>(const DCNv3Shape&, const S*, const DCNv3Points<const S>&,    \
                                     bool, S*);                                                   \
  template void dcnv3_backward_cpu<S>(const DCNv3Shape&, const S*, const S*,                      \
                                      const DCNv3Points<const S>&, bool, S*,                      \
                                      const DCNv3Points<S>&);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn
