// The sampling of dcnv3 and dcnv4 on the CPU.
//
// Points (coordinates, corner weights, softmax) are computed for a block of pixels at once, with
// the taps of all its pixels in one vectorised loop; then each point reads four rows of channels.
// Forward: threads own pixels. Backward: threads own groups of images, whose gradients are
// disjoint, so nothing is atomic and the sums do not depend on the number of threads.
#include "common/bilinear.h"
#include "common/cpu.h"
#include "common/math.h"
#include "common/simd.h"
#include "dcnv3/dcnv3.h"

namespace mmdcn {
namespace {

template <int N>
using Int = std::integral_constant<int, N>;

constexpr int64_t kBlockPoints = 1024;

// The points of a block as a structure of arrays, entry (pixel, group, tap).
template <typename T>
struct Block {
  int64_t capacity;
  Buffer<int32_t> index;  // 4 corners: pixel, or -1 outside
  Buffer<T> value;        // 4 corner weights (times the tap's), ly, lx, tap weight, y, x

  explicit Block(int64_t points)
      : capacity(points), index(make_buffer<int32_t>(4 * points)), value(make_buffer<T>(9 * points)) {}
  T* field(int64_t i) const { return value.get() + i * capacity; }
};

enum Field { kWeight00, kWeight01, kWeight10, kWeight11, kLy, kLx, kTapWeight, kY, kX };

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

// Pixels [first, first + count) of image n, groups [group, group + groups).
template <typename S, typename T>
MMDCN_INLINE void locate_block(const DCNv3Shape& s, const Grid<T>& grid,
                               const DCNv3Points<const S>& points, bool with_softmax, int64_t n,
                               int64_t first, int64_t count, int64_t group, int64_t groups,
                               const Block<T>& block) {
  const int64_t taps = s.taps();
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
  const int64_t stride = block.capacity;
  int32_t* __restrict index = block.index.get();
  T* __restrict value = block.value.get();
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < at; ++j) {
    const T w = value[kTapWeight * stride + j];
    const Corners<T> p =
        bilinear_corners(value[kY * stride + j], value[kX * stride + j], height, width);
    index[j] = p.i00;
    index[stride + j] = p.i01;
    index[2 * stride + j] = p.i10;
    index[3 * stride + j] = p.i11;
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
MMDCN_INLINE void aggregate_chunk(int64_t taps, const S* image, int64_t channels, int64_t channel,
                                  const S* zeros, const int32_t* index, const T* weight,
                                  int64_t stride, S* out) {
  Vec<T, N> sum[4][kVectors] = {};  // a chain of additions per corner
  for (int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t at = index[corner * stride + k];
      const S* row = at >= 0 ? image + at * channels + channel : zeros;
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

template <typename S, typename T>
MMDCN_INLINE void aggregate_impl(const DCNv3Shape& s, const S* image, const S* zeros, int64_t count,
                                 const Block<T>& block, S* out) {
  const int64_t taps = s.taps(), size = s.group_channels();
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i, out += s.channels) {
    for (int64_t g = 0; g < s.groups; ++g, at += taps) {
      const int32_t* index = block.index.get() + at;
      const T* weight = block.value.get() + at;
      int64_t c = g * size;
      const int64_t end = c + size;
      const auto run = [&](auto vectors, auto lanes) __attribute__((always_inline)) {
        constexpr int kVectors = vectors, kSize = kVectors * lanes;
        for (; c + kSize <= end; c += kSize) {
          aggregate_chunk<kVectors, lanes>(taps, image, s.channels, c, zeros, index, weight,
                                           block.capacity, out);
        }
      };
      run(Int<32 / kLanes<S>>{}, Int<kLanes<S>>{});
      run(Int<16 / kLanes<S>>{}, Int<kLanes<S>>{});
      run(Int<1>{}, Int<4>{});
      run(Int<1>{}, Int<1>{});
    }
  }
}

// One point: dot products of the output gradient with its four neighbours, and, where grad_image
// is not null, the gradient added to them.
template <int kChunk, typename S, typename T>
MMDCN_INLINE void point_chunk(const S* const* rows, T* const* grad_rows, const T* weights,
                              const T* grad, int64_t c, T* dots) {
  const Vec<T, kChunk> g = load_vec<kChunk>(grad + c);
#pragma GCC unroll 4
  for (int corner = 0; corner < 4; ++corner) {
    dots[corner] += sum_lanes<T, kChunk>(g * load_vec<kChunk>(rows[corner] + c));
    if (!grad_rows[corner]) continue;
    T* const out = grad_rows[corner] + c;
    store_vec<kChunk>(out, load_vec<kChunk>(out) + weights[corner] * g);
  }
}

// A block of pixels of one group. grads: the block's gradients of (dx, dy, weight) a point.
template <typename S, typename T>
MMDCN_INLINE void backward_impl(const DCNv3Shape& s, int64_t group, const S* grad_output,
                                const S* image, const S* zeros, int64_t count,
                                const Block<T>& block, bool with_softmax, T* grad_image, T* grad,
                                T* __restrict grads) {
  const int64_t taps = s.taps(), size = s.group_channels(), stride = block.capacity;
  const T scale = static_cast<T>(s.offset_scale);
  for (int64_t i = 0; i < count; ++i) {
    const S* __restrict grad_row = grad_output + i * s.channels + group * size;
    for (int64_t c = 0; c < size; ++c) grad[c] = to_compute(grad_row[c]);
    T* const out = grads + 3 * i * taps;
    for (int64_t k = 0; k < taps; ++k) {
      const int64_t j = i * taps + k;
      const S* rows[4];
      T *grad_rows[4], weights[4], dots[4] = {};
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t at = block.index[corner * stride + j];
        const int64_t channel = at * s.channels + group * size;
        rows[corner] = at >= 0 ? image + channel : zeros;
        grad_rows[corner] = at >= 0 && grad_image ? grad_image + channel : nullptr;
        weights[corner] = block.value[corner * stride + j];
      }
      int64_t c = 0;
      for (; c + 16 <= size; c += 16) point_chunk<16>(rows, grad_rows, weights, grad, c, dots);
      for (; c + 4 <= size; c += 4) point_chunk<4>(rows, grad_rows, weights, grad, c, dots);
      for (; c < size; ++c) point_chunk<1>(rows, grad_rows, weights, grad, c, dots);
      const T ly = block.value[kLy * stride + j], lx = block.value[kLx * stride + j];
      const T w = block.value[kTapWeight * stride + j] * scale;
      const T hy = T(1) - ly, hx = T(1) - lx;
      out[2 * k] = w * bilinear_grad_x(ly, dots[0], dots[1], dots[2], dots[3]);
      out[2 * k + 1] = w * bilinear_grad_y(lx, dots[0], dots[1], dots[2], dots[3]);
      out[2 * taps + k] = hy * (hx * dots[0] + lx * dots[1]) + ly * (hx * dots[2] + lx * dots[3]);
    }
    if (with_softmax) {
      const T* weight = block.value.get() + kTapWeight * stride + i * taps;
      T mean = 0;
      for (int64_t k = 0; k < taps; ++k) mean += weight[k] * out[2 * taps + k];
      for (int64_t k = 0; k < taps; ++k) {
        out[2 * taps + k] = weight[k] * (out[2 * taps + k] - mean);
      }
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_DCNV3_LOOPS(S)                                                                       \
  MMDCN_CLONES void locate(const DCNv3Shape& s, const Grid<Compute<S>>& grid,                      \
                           const DCNv3Points<const S>& points, bool with_softmax, int64_t n,       \
                           int64_t first, int64_t count, int64_t group, int64_t groups,            \
                           const Block<Compute<S>>& block) {                                       \
    locate_block(s, grid, points, with_softmax, n, first, count, group, groups, block);            \
  }                                                                                                \
  MMDCN_CLONES void aggregate(const DCNv3Shape& s, const S* image, const S* zeros, int64_t count,  \
                              const Block<Compute<S>>& block, S* out) {                            \
    aggregate_impl(s, image, zeros, count, block, out);                                            \
  }                                                                                                \
  MMDCN_CLONES void backward(const DCNv3Shape& s, int64_t group, const S* grad_output,             \
                             const S* image, const S* zeros, int64_t count,                        \
                             const Block<Compute<S>>& block, bool with_softmax,                    \
                             Compute<S>* grad_image, Compute<S>* grad, Compute<S>* grads) {        \
    backward_impl(s, group, grad_output, image, zeros, count, block, with_softmax, grad_image,     \
                  grad, grads);                                                                    \
  }

MMDCN_DCNV3_LOOPS(double)
MMDCN_DCNV3_LOOPS(float)
MMDCN_DCNV3_LOOPS(BFloat16)
MMDCN_DCNV3_LOOPS(Half)

}  // namespace

template <typename S>
void dcnv3_forward_cpu(const DCNv3Shape& s, const S* input, const DCNv3Points<const S>& points,
                       bool softmax, S* output) {
  using T = Compute<S>;
  const Grid<T> grid(s);
  const Buffer<S> zeros = make_zeros<S>(s.group_channels());
  const int64_t per_pixel = s.groups * s.taps(), pixels = s.out_pixels();
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / per_pixel);
  const int64_t blocks = ceil_div(pixels, block_pixels);
  torch::stable::parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Block<T> block(block_pixels * per_pixel);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * block_pixels;
      const int64_t count = std::min(block_pixels, pixels - first);
      locate(s, grid, points, softmax, n, first, count, 0, s.groups, block);
      aggregate(s, input + n * s.height * s.width * s.channels, zeros.get(), count, block,
                output + (n * pixels + first) * s.channels);
    }
  });
}

template <typename S>
void dcnv3_backward_cpu(const DCNv3Shape& s, const S* grad_output, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, Tensor* grad_input,
                        const DCNv3Points<S>& grad_points) {
  using T = Compute<S>;
  const Grid<T> grid(s);
  const Buffer<S> zeros = make_zeros<S>(s.group_channels());
  const int64_t taps = s.taps(), pixels = s.out_pixels(), image_size = s.height * s.width * s.channels;
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / taps);
  T* const grad_images = grad_input ? grad_input->mutable_data_ptr<T>() : nullptr;
  if (grad_input) torch::stable::zero_(*grad_input);
  torch::stable::parallel_for(0, s.batch * s.groups, 1, [&](int64_t begin, int64_t end) {
    const Block<T> block(block_pixels * taps);
    const Buffer<T> grad = make_buffer<T>(s.group_channels());
    const Buffer<T> grads = make_buffer<T>(3 * block_pixels * taps);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / s.groups, group = item % s.groups;
      for (int64_t first = 0; first < pixels; first += block_pixels) {
        const int64_t count = std::min(block_pixels, pixels - first);
        locate(s, grid, points, softmax, n, first, count, group, 1, block);
        backward(s, group, grad_output + (n * pixels + first) * s.channels, input + n * image_size,
                 zeros.get(), count, block, softmax,
                 grad_images ? grad_images + n * image_size : nullptr, grad.get(), grads.get());
        for (int64_t i = 0; i < count; ++i) {
          const int64_t row = n * pixels + first + i;
          S* offset = grad_points.offset + row * grad_points.offset_pixel +
                      group * grad_points.offset_group;
          S* weight = grad_points.weight + row * grad_points.weight_pixel +
                      group * grad_points.weight_group;
          const T* from = grads.get() + 3 * i * taps;
          for (int64_t k = 0; k < 2 * taps; ++k) offset[k] = convert<S>(from[k]);
          for (int64_t k = 0; k < taps; ++k) weight[k] = convert<S>(from[2 * taps + k]);
        }
      }
    }
  });
}

#define MMDCN_INSTANTIATE(S)                                                                      \
  template void dcnv3_forward_cpu<S>(const DCNv3Shape&, const S*, const DCNv3Points<const S>&,    \
                                     bool, S*);                                                   \
  template void dcnv3_backward_cpu<S>(const DCNv3Shape&, const S*, const S*,                      \
                                      const DCNv3Points<const S>&, bool, Tensor*,                 \
                                      const DCNv3Points<S>&);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn
