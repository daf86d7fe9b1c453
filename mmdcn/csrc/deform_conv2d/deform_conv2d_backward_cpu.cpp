// Backward pass of deformable convolution on the CPU.
//
// All threads work on one tile of pixels at a time, in two steps: by blocks of pixels (gradient of
// the columns, columns again, gradients of offsets and mask), then by strips of channels (gradients
// of weight and input). Each thread owns what it writes, and neither tiles nor sums depend on the
// number of threads, so the gradients are the same bits whatever that number.
#include "common/base/bilinear.h"
#include "common/cpu/transpose.h"
#include "deform_conv2d/deform_conv2d_tile_cpu.h"

namespace mmdcn::deform_conv2d {
namespace {

constexpr int64_t kTileElements = 1024 * 1024;  // of columns, and again of their gradient

// Matrices are multiplied as E.
template <typename S, typename E>
struct Backward {
  using T = Compute<S>;

  const Shape& s;
  const bool need_input, need_offset, need_weight;
  const S *grad_output, *input;  // input is channels last
  const PointTensors<S> tensors;
  const S* weight;
  T *grad_input, *grad_offset, *grad_mask, *grad_weight;  // null when not needed

  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), pixels = s.out_pixels(), depth = s.depth();
  const int64_t group_depth = s.group_depth(), group_out = s.group_out_channels();
  const int64_t block = 4 * gemm.mr;
  const int64_t tile =
      std::min(std::clamp(kTileElements / depth / block, int64_t{1}, int64_t{64}) * block,
               round_up(pixels, block));
  const int64_t padded_out = round_up(group_out, gemm.mr);  // of a group in grad_tile

  const Points<T> points{s, tile};
  const Buffer<E> columns = make_buffer<E>(tile * depth);
  const Buffer<T> grad_columns = make_buffer<T>(tile * depth);
  const Buffer<E> grad_tile =
      make_zeros<E>(s.groups * padded_out * tile);  // [group][out channel][pixel]
  const std::vector<Segment> segments = make_segments(s, s.channels);
  const std::vector<Segment> strips = make_segments(s, gemm.nr);
  const Panels<E> panels = pack_weight_transposed<E>(s, weight);

  void run() const {
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t first = 0; first < pixels; first += tile) {
        const int64_t count = std::min(tile, pixels - first);
        parallel_items(ceil_div(count, block), [&](int64_t item) {
          const int64_t start = item * block;
          pixel_block(n, first + start, start, std::min(block, count - start));
        });
        if (!need_input && !need_weight) continue;
        parallel_items(static_cast<int64_t>(strips.size()),
                       [&](int64_t item) { channel_strip(n, count, strips[item]); });
      }
    }
  }

 private:
  // Output pixels [first, first + count) of image n, which are pixels `start` and so on of the
  // tile.
  void pixel_block(int64_t n, int64_t first, int64_t start, int64_t count) const {
    multiply(grad_output + n * s.out_channels * pixels + first, start, count);
    locate_tile(s, tensors.of_image(s, n), {0, s.height}, first, count, points, start);
    const SampledImage<S> image{input + n * s.channels * s.pixels(), nullptr, s.channels,
                                s.pixels()};
    const Buffer<T> dots = make_zeros<T>(s.points() * count * 4);
    for (const Segment& segment : segments) {
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t point = segment.deform_group * taps + k;
        const int64_t at = start * depth + segment.column + k * s.group_channels();
        sample_tile_with_dots(image, segment, count, PointsView<T>(points, point, start),
                              grad_columns.get() + at, columns.get() + at, depth,
                              dots.get() + point * count * 4);
      }
    }
    if (need_offset) store_offset_gradients(n, first, start, count, dots.get());
  }

  // The gradient of the columns from that of the output, which is also kept in grad_tile.
  void multiply(const S* grad, int64_t start, int64_t count) const {
    const int64_t outs = s.out_channels;
    const Buffer<E> grad_pixels = make_zeros<E>(block * outs);  // [pixel][out channel]
    transpose_block(grad, pixels, grad_pixels.get(), outs, outs, count);
    for (int64_t o = 0; o < outs; ++o) {
      convert_copy(grad + o * pixels, count,
                   grad_tile.get() + (o / group_out * padded_out + o % group_out) * tile + start);
    }
    for (int64_t g = 0; g < s.groups; ++g) {
      gemm_panels(gemm, count, group_depth, group_out, grad_pixels.get() + g * group_out, outs,
                  panels[g], grad_columns.get() + start * depth + g * group_depth, depth, false);
    }
  }

  void store_offset_gradients(int64_t n, int64_t first, int64_t start, int64_t count,
                              const T* dots) const {
    for (int64_t point = 0; point < s.points(); ++point) {
      const PointsView<T> view(points, point, start);
      const T *ly = view.ly(), *lx = view.lx(), *m = view.mask();
      const T* d = dots + point * count * 4;
      T* grad_y = grad_offset + (n * s.points() + point) * 2 * pixels + first;
      T* grad_x = grad_y + pixels;
      for (int64_t i = 0; i < count; ++i, d += 4) {
        grad_y[i] = m[i] * bilinear_grad_y(lx[i], d[0], d[1], d[2], d[3]);
        grad_x[i] = m[i] * bilinear_grad_x(ly[i], d[0], d[1], d[2], d[3]);
        if (grad_mask) {
          const T hy = T(1) - ly[i], hx = T(1) - lx[i];
          grad_mask[(n * s.points() + point) * pixels + first + i] =
              hy * (hx * d[0] + lx[i] * d[1]) + ly[i] * (hx * d[2] + lx[i] * d[3]);
        }
      }
    }
  }

  void channel_strip(int64_t n, int64_t count, const Segment& strip) const {
    const Buffer<E> panel = make_buffer<E>(round_up(count, kDepthStep<E>) * gemm.nr);
    for (int64_t k = 0; k < taps; ++k) {
      const int64_t column = strip.column + k * s.group_channels();
      if (need_weight) {
        pack_panel(columns.get() + column, depth, count, strip.size, gemm.nr, panel.get());
        gemm_panels(gemm, group_out, strip.size, count,
                    grad_tile.get() + strip.group * padded_out * tile, tile, panel.get(),
                    grad_weight + strip.group * group_out * group_depth + k * s.group_channels() +
                        strip.group_channel,
                    group_depth, true);
      }
      if (need_input) {
        scatter_tile(grad_input + n * s.channels * s.pixels(), s.channels, strip, count,
                     PointsView<T>(points, strip.deform_group * taps + k, 0),
                     grad_columns.get() + column, depth);
      }
    }
  }
};

template <typename T, typename S>
Tensor bias_gradient(const Shape& s, const S* grad_output, ScalarType type) {
  Tensor grad_bias = torch::stable::empty({s.out_channels}, type);
  T* out = grad_bias.mutable_data_ptr<T>();
  parallel_items(s.out_channels, [&](int64_t o) {
    double sum = 0;
    for (int64_t n = 0; n < s.batch; ++n) {
      const S* grad = grad_output + (n * s.out_channels + o) * s.out_pixels();
      for (int64_t i = 0; i < s.out_pixels(); ++i) sum += to_compute(grad[i]);
    }
    out[o] = static_cast<T>(sum);
  });
  return grad_bias;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename S, typename E>
Gradients run_backward(const Shape& s, const Tensor& grad_any, const Tensor& input_any,
                       const Tensor& offset_any, const std::optional<Tensor>& mask_any,
                       const Tensor& weight_any, bool need_input, bool need_offset,
                       bool need_weight) {
  using T = Compute<S>;
  const ScalarType own = input_any.scalar_type(), type = compute_scalar_type(own);
  const bool channels_last = is_channels_last(input_any);
  const int64_t image_size = s.channels * s.pixels();
  const Tensor grad_output = contiguous_tensor(grad_any);
  const Tensor offset = contiguous_tensor(offset_any);
  const Tensor weight = contiguous_tensor(weight_any);
  const std::optional<Tensor> mask = contiguous_tensor(mask_any);
  Tensor input = input_any;
  if (!channels_last) {
    const Tensor planes = contiguous_tensor(input_any);
    input = empty_image(input_any, {s.batch, s.channels, s.height, s.width}, own, true);
    transpose_batch(planes.const_data_ptr<S>(), s.pixels(), image_size, input.mutable_data_ptr<S>(),
                    s.channels, image_size, s.batch, s.channels, s.pixels());
  }

  const Tensor none = torch::stable::empty({0}, own);
  Tensor grad_input = none, grad_offset = none, grad_mask = none, grad_weight = none,
         grad_bias = none;
  if (need_input) {
    grad_input = empty_image(input_any, {s.batch, s.channels, s.height, s.width}, type, true);
    torch::stable::zero_(grad_input);
  }
  if (need_offset) grad_offset = torch::stable::empty(shape_of(offset), type);
  if (need_offset && mask) grad_mask = torch::stable::empty(shape_of(*mask), type);
  // [group][out channel][tap][channel of group] while it is accumulated.
  const Buffer<T> weight_sums = make_zeros<T>(need_weight ? s.out_channels * s.group_depth() : 0);
  const S* grad_ptr = grad_output.const_data_ptr<S>();

  if (s.batch > 0) {
    const auto data = [](const Tensor& t, bool needed) {
      return needed ? t.mutable_data_ptr<T>() : nullptr;
    };
    Backward<S, E>{.s = s,
                   .need_input = need_input,
                   .need_offset = need_offset,
                   .need_weight = need_weight,
                   .grad_output = grad_ptr,
                   .input = input.const_data_ptr<S>(),
                   .tensors = {offset.const_data_ptr<S>(), data_or_null<S>(mask)},
                   .weight = weight.const_data_ptr<S>(),
                   .grad_input = data(grad_input, need_input),
                   .grad_offset = data(grad_offset, need_offset),
                   .grad_mask = data(grad_mask, need_offset && mask),
                   .grad_weight = weight_sums.get()}
        .run();
  }

  if (need_input && channels_last) {
    grad_input = cast(grad_input, own);
  } else if (need_input) {
    const Tensor sums = grad_input;
    grad_input = torch::stable::empty(shape_of(input), own);
    transpose_batch(sums.const_data_ptr<T>(), s.channels, image_size,
                    grad_input.mutable_data_ptr<S>(), s.pixels(), image_size, s.batch, s.pixels(),
                    s.channels);
  }
  if (need_weight) {
    grad_weight = torch::stable::empty(shape_of(weight), own);
    transpose_batch(weight_sums.get(), s.group_channels(), s.group_depth(),
                    grad_weight.mutable_data_ptr<S>(), s.taps(), s.group_depth(), s.out_channels,
                    s.taps(), s.group_channels());
    grad_bias = bias_gradient<T>(s, grad_ptr, type);
  }
  return {grad_input, cast(grad_offset, own), cast(grad_mask, own), grad_weight,
          cast(grad_bias, own)};
}

Gradients backward(const Tensor& grad_output, const Tensor& input, const Tensor& offset,
                   std::optional<Tensor> mask, const Tensor& weight, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t deform_groups, bool need_input, bool need_offset, bool need_weight,
                   bool /*deterministic*/) {
  const Shape s = make_shape(input, offset, mask, weight, std::nullopt, stride, padding, dilation,
                             groups, deform_groups);
  check_shape(grad_output, "grad_output", {s.batch, s.out_channels, s.out_h, s.out_w});
  check_like(grad_output, "grad_output", input, "input");
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    return dispatch_element<S>([&](auto element) {
      return run_backward<S, decltype(element)>(s, grad_output, input, offset, mask, weight,
                                                need_input, need_offset, need_weight);
    });
  });
}

}  // namespace
}  // namespace mmdcn::deform_conv2d

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_conv2d_backward", TORCH_BOX(&mmdcn::deform_conv2d::backward));
}
