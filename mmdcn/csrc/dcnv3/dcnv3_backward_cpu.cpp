// Backward pass of dcnv3 and dcnv4 on the CPU. Threads own groups, so nothing is atomic and the
// sums do not depend on the number of threads.
#include "common/bilinear.h"
#include "dcnv3/dcnv3_points_cpu.h"

namespace mmdcn {
namespace {

// Of N channels from `channel` on of the output gradient of a group and of the neighbours of each
// point, in images of one group: dots[4 j + corner] (+)= their dot product, and the weighted
// gradient is added to `sums`.
template <int kTaps, bool kInside, bool kSums, int N, typename T>
MMDCN_INLINE void backward_chunk(const DCNv3Shape& s, const T* grad, int64_t grad_stride,
                                 Image<T> image, int64_t channel, int64_t count,
                                 Neighbours<kInside, T> neighbours, T* sums, T* dots) {
  constexpr int kHalf = N > 8 ? N / 2 : N;  // processors forward wide stores to the next load late
  const int64_t taps = kTaps ? kTaps : s.taps();
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i, grad += grad_stride) {
    const Vec<T, N> g = load_vec<N>(grad + channel);
    const Vec<T, kHalf> half[2] = {load_vec<kHalf>(grad + channel),
                                   load_vec<kHalf>(grad + channel + N - kHalf)};
    for (int64_t k = 0; k < taps; ++k, ++at) {
      Vec<T, N> product[4];
#pragma GCC unroll 4
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = neighbours.offset(at, corner);
        product[corner] = g * load_vec<N>(image.row(row) + channel);
        if (!kSums || (!kInside && row == image.missing)) continue;
        const T w = neighbours.weight(at, corner);
        T* const out = sums + row + channel;
#pragma GCC unroll 2
        for (int h = 0; h < N / kHalf; ++h) {
          store_vec<kHalf>(out + h * kHalf, load_vec<kHalf>(out + h * kHalf) + w * half[h]);
        }
      }
      Vec<T, 4> dot = sum_lanes_of_four<T, N>(product);
      if (channel) dot += load_vec<4>(dots + 4 * at);
      store_vec<4>(dots + 4 * at, dot);
    }
  }
}

template <int kTaps, bool kInside, bool kSums, typename T>
MMDCN_INLINE void backward_impl(const DCNv3Shape& s, const T* grad, int64_t grad_stride,
                                const Image<T>& image, int64_t count, const Block<T>& block,
                                T* sums, T* dots) {
  const Neighbours<kInside, T> neighbours(block, image.stride, s.width);
  for_chunks<kLanes<T>>(0, s.group_channels(),
                        [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
                          for (int v = 0; v < vectors; ++v, c += lanes) {
                            backward_chunk<kTaps, kInside, kSums, lanes>(
                                s, grad, grad_stride, image, c, count, neighbours, sums, dots);
                          }
                        });
}

// Rows of channels, `from_stride` and `to_stride` elements from pixel to pixel.
template <typename From, typename To>
MMDCN_INLINE void copy_channels_impl(int64_t pixels, int64_t size, const From* from,
                                     int64_t from_stride, To* to, int64_t to_stride) {
  constexpr int kWidest = kLanes<std::conditional_t<std::is_same_v<From, To>, From, BFloat16>>;
  for (int64_t i = 0; i < pixels; ++i, from += from_stride, to += to_stride) {
    for_chunks<kWidest>(0, size,
                        [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
                          for (int v = 0; v < vectors; ++v, c += lanes) {
                            store_vec<lanes>(to + c, load_vec<lanes>(from + c));
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
#define MMDCN_GRADIENT_LOOPS(T)                                                                  \
  MMDCN_CLONES void backward_points(const DCNv3Shape& s, const T* grad, int64_t grad_stride,     \
                                    const Image<T>& image, int64_t count, const Block<T>& block, \
                                    T* sums, T* dots) {                                          \
    specialize(s.taps(), block.inside,                                                           \
               [&](auto taps, auto inside) __attribute__((always_inline)) {                      \
                 if (sums) {                                                                     \
                   backward_impl<taps, inside, true>(s, grad, grad_stride, image, count, block,  \
                                                     sums, dots);                                \
                 } else {                                                                        \
                   backward_impl<taps, inside, false>(s, grad, grad_stride, image, count, block, \
                                                      sums, dots);                               \
                 }                                                                               \
               });                                                                               \
  }                                                                                              \
  MMDCN_CLONES void point_gradients(int64_t count, T scale, const T* dots, const T* value,       \
                                    int64_t stride, T* grad_offset, T* grad_weight) {            \
    point_gradients_impl(count, scale, dots, value, stride, grad_offset, grad_weight);           \
  }

#define MMDCN_COPY_CHANNELS(From, To)                                               \
  MMDCN_CLONES void copy_channels(int64_t pixels, int64_t size, const From* from,   \
                                  int64_t from_stride, To* to, int64_t to_stride) { \
    copy_channels_impl(pixels, size, from, from_stride, to, to_stride);             \
  }

MMDCN_GRADIENT_LOOPS(double)
MMDCN_GRADIENT_LOOPS(float)
MMDCN_COPY_CHANNELS(double, double)
MMDCN_COPY_CHANNELS(float, float)
MMDCN_COPY_CHANNELS(BFloat16, float)
MMDCN_COPY_CHANNELS(float, BFloat16)
MMDCN_COPY_CHANNELS(Half, float)
MMDCN_COPY_CHANNELS(float, Half)

// The backward pass. A thread owns a group of an image and works on copies of its channels: side by
// side in memory, the groups of two threads would fight over cache lines.
//
// The output is walked down in strips as wide as a block, so that what their rows touch stays in a
// first-level cache.
template <typename S>
struct Backward {
  using T = Compute<S>;

  const DCNv3Shape& s;
  const DCNv3Points<const S>& points;
  const bool softmax;
  const S* grad_output;
  const DCNv3Points<S>& grad_points;

  const Grid<T> grid{s};
  const int64_t taps = s.taps(), size = s.group_channels();
  const int64_t pixels = s.out_pixels(), in_pixels = s.height * s.width;
  const int64_t run = std::max<int64_t>(1, kBlockPoints / taps);
  const Buffer<T> zeros = make_zeros<T>(size);

  void operator()(const S* input, S* grad_input) const {
    torch::stable::parallel_for(0, s.batch * s.groups, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(*this, grad_input != nullptr);
      for (int64_t map = begin; map < end; ++map) {
        const int64_t at = map / s.groups * in_pixels * s.channels + map % s.groups * size;
        copy_channels(in_pixels, size, input + at, s.channels, scratch.image.get(), size);
        if (grad_input) std::fill_n(scratch.sum.get(), in_pixels * size, T(0));
        for (int64_t left = 0; left < s.out_w; left += run) run_strip(map, left, scratch);
        if (grad_input) {
          copy_channels(in_pixels, size, scratch.sum.get(), size, grad_input + at, s.channels);
        }
      }
    });
  }

 private:
  struct Scratch {
    Block<T> block;
    Buffer<T> image, sum, grad, dots, grad_offset, grad_weight;

    Scratch(const Backward& b, bool with_sum)
        : block(b.run * b.taps),
          image(make_buffer<T>(b.in_pixels * b.size)),
          sum(with_sum ? make_buffer<T>(b.in_pixels * b.size) : Buffer<T>()),
          grad(make_buffer<T>(b.run * b.size)),
          dots(make_buffer<T>(4 * b.run * b.taps)),
          grad_offset(make_buffer<T>(2 * b.run * b.taps)),
          grad_weight(make_buffer<T>(b.run * b.taps)) {}
  };

  void run_strip(int64_t map, int64_t left, Scratch& scratch) const {
    const int64_t n = map / s.groups, group = map % s.groups;
    const int64_t count = std::min(run, s.out_w - left);
    const Image<T> image(scratch.image.get(), size, zeros.get());
    T *const sum = scratch.sum.get(), *const grad = scratch.grad.get(),
             *const grad_offset = scratch.grad_offset.get(),
             *const grad_weight = scratch.grad_weight.get();
    Block<T>& block = scratch.block;
    for (int64_t y = 0; y < s.out_h; ++y) {
      const int64_t first = y * s.out_w + left, row = n * pixels + first;
      locate_points<S>(s, grid, points, softmax, size, image.missing, n, first, count, group, 1,
                       block);
      prefetch_below(s, image.data, size, first, count);
      if (sum) prefetch_below(s, sum, size, first, count);
      const S* from = grad_output + row * s.channels + group * size;
      if constexpr (std::is_same_v<S, T>) {
        backward_points(s, from, s.channels, image, count, block, sum, scratch.dots.get());
      } else {
        for (int64_t i = 0; i < count; ++i) {
          convert_copy(from + i * s.channels, size, grad + i * size);
        }
        backward_points(s, grad, size, image, count, block, sum, scratch.dots.get());
      }
      point_gradients(count * taps, grid.scale, scratch.dots.get(), block.value.get(),
                      block.capacity, grad_offset, grad_weight);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = i * taps;
        if (softmax) softmax_gradient(taps, block.field(kTapWeight) + at, grad_weight + at);
        convert_copy(grad_offset + 2 * at, 2 * taps,
                     grad_points.offset + (row + i) * grad_points.offset_pixel +
                         group * grad_points.offset_group);
        convert_copy(grad_weight + at, taps,
                     grad_points.weight + (row + i) * grad_points.weight_pixel +
                         group * grad_points.weight_group);
      }
    }
  }
};

}  // namespace

template <typename S>
void dcnv3_backward_cpu(const DCNv3Shape& s, const S* grad_output, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, S* grad_input,
                        const DCNv3Points<S>& grad_points) {
  Backward<S>{s, points, softmax, grad_output, grad_points}(input, grad_input);
}

#define MMDCN_INSTANTIATE(S)                                                 \
  template void dcnv3_backward_cpu<S>(const DCNv3Shape&, const S*, const S*, \
                                      const DCNv3Points<const S>&, bool, S*, \
                                      const DCNv3Points<S>&);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn
