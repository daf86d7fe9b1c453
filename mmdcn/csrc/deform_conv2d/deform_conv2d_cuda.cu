// Deformable convolution on the GPU: columns are sampled into a buffer of limited size and
// multiplied with the weights by ATen, chunk after chunk of output pixels.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#include <numeric>

#include "common/cuda/gradient_sum.h"
#include "common/cuda/window.h"
#include "deform_conv2d/deform_conv2d.h"
#include "deform_conv2d/deform_conv2d_kernels.cuh"

namespace mmdcn::deform_conv2d {
namespace {

// Of the buffer for columns, unless the columns of a single pixel need more.
constexpr int64_t kColumnBytes = 64 << 20;

Grid make_grid(const Shape& s) {
  return {window_grid(s), to_int32(s.channels), to_int32(s.deform_groups),
          to_int32(s.group_channels()), to_int32(s.channels / s.deform_groups)};
}

// A batch of matrices in a tensor's memory.
struct Matrices {
  const Tensor& tensor;
  int64_t first, batch_stride, m_stride, n_stride;

  Tensor view(int64_t batch, int64_t m, int64_t n) const {
    char* data = static_cast<char*>(tensor.data_ptr()) + first * tensor.element_size();
    return torch::stable::from_blob(data, {batch, m, n}, {batch_stride, m_stride, n_stride},
                                    tensor.device(), tensor.scalar_type());
  }
};

// out[m][n] = a[m][depth] b[depth][n] for `batch` pairs of matrices.
void multiply(const Matrices& out, const Matrices& a, const Matrices& b, int64_t batch, int64_t m,
              int64_t depth, int64_t n) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_bmm_out(
      out.view(batch, m, n).get(), a.view(batch, m, depth).get(), b.view(batch, depth, n).get()));
}

// What forward and backward share. The output pixels are cut into chunks, in the input's memory
// format: where it is channels last, pixels of all images count as one image.
template <typename S>
class Chunks {
 public:
  using T = Compute<S>;

  Chunks(const CudaDevice& device, const Shape& s, const Tensor& input, const Tensor& offset,
         const std::optional<Tensor>& mask, const Tensor& weight)
      : device_(device),
        s_(s),
        grid_(make_grid(s)),
        channels_last_(is_channels_last(input)),
        input_(contiguous_tensor(input, MemoryFormat::ChannelsLast)),
        offset_(contiguous_tensor(offset)),
        mask_(contiguous_tensor(mask)),
        weight_(contiguous_tensor(weight, MemoryFormat::ChannelsLast)),
        group_depth_(s.group_depth()),
        depth_(s.depth()),
        images_(channels_last_ ? 1 : s.batch),
        pixels_(channels_last_ ? s.batch * s.out_pixels() : s.out_pixels()),
        chunk_(std::clamp<int64_t>(kColumnBytes / (depth_ * sizeof(S)), 1,
                                   std::max<int64_t>(pixels_, 1))),
        columns_(empty_tensor(input, {chunk_ * depth_})) {}

  void forward(const Tensor& output, const std::optional<Tensor>& bias) const {
    for_each_chunk([&](int64_t image, int64_t first, int64_t count) {
      sample(image * pixels_ + first, count);
      const Matrices columns{columns_, 0, group_depth_, 1, depth_},
          out = outputs(output, image, first);
      if (!bias) return multiply(out, weights(), columns, s_.groups, outs(), group_depth_, count);
      const Matrices biases{*bias, 0, outs(), 1, 0};
      STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_baddbmm_out(
          out.view(s_.groups, outs(), count).get(), biases.view(s_.groups, outs(), count).get(),
          weights().view(s_.groups, outs(), group_depth_).get(),
          columns.view(s_.groups, group_depth_, count).get(), 1.0, 1.0));
    });
  }

  // The gradients are contiguous, grad_input and weight_sums channels last, in the dtype of
  // computation and zero; empty ones are not needed.
  void backward(const Tensor& grad_output, const Tensor& grad_input, const Tensor& grad_offset,
                const Tensor& grad_mask, const Tensor& weight_sums, bool deterministic) const {
    GradientAccumulator<T> accumulator(device_, grad_input, deterministic);
    const Tensor weight_part = empty_tensor(weight_, {weight_sums.numel()});
    for_each_chunk([&](int64_t image, int64_t first, int64_t count) {
      const Matrices grad = outputs(grad_output, image, first);
      if (weight_sums.numel() > 0) {
        sample(image * pixels_ + first, count);
        multiply({weight_part, 0, outs() * group_depth_, group_depth_, 1}, grad,
                 {columns_, 0, group_depth_, depth_, 1}, s_.groups, outs(), count, group_depth_);
        device_.launch(accumulate_kernel<S>,
                       AccumulateParams<S>{weight_sums.mutable_data_ptr<T>(),
                                           weight_part.const_data_ptr<S>(), weight_sums.numel()},
                       weight_sums.numel(), 0);
      }
      if (grad_input.numel() == 0 && grad_offset.numel() == 0) return;
      const Matrices transposed{grad.tensor, grad.first, grad.batch_stride, grad.n_stride,
                                grad.m_stride};
      multiply({columns_, 0, group_depth_, depth_, 1}, transposed, weights(), s_.groups, count,
               outs(), group_depth_);
      scatter(image * pixels_ + first, count, accumulator, grad_offset, grad_mask);
    });
  }

 private:
  int64_t outs() const { return s_.group_out_channels(); }

  template <typename F>
  void for_each_chunk(const F& f) const {
    for (int64_t image = 0; image < images_; ++image) {
      for (int64_t first = 0; first < pixels_; first += chunk_) {
        f(image, first, std::min(chunk_, pixels_ - first));
      }
    }
  }

  Matrices weights() const { return {weight_, 0, outs() * group_depth_, group_depth_, 1}; }

  // Output channels x pixels, by group.
  Matrices outputs(const Tensor& output, int64_t image, int64_t first) const {
    if (channels_last_) return {output, first * s_.out_channels, outs(), 1, s_.out_channels};
    return {output, image * s_.out_channels * pixels_ + first, outs() * pixels_, pixels_, 1};
  }

  int64_t team_vector(int64_t vector, std::initializer_list<const void*> addresses) const {
    const int64_t divisor = std::gcd(s_.group_channels(), s_.channels / s_.deform_groups);
    return vectors_fit<S>(vector, divisor, addresses) ? vector : 1;
  }

  void sample(int64_t first_pixel, int64_t count) const {
    ColumnsParams<S> p{grid_,
                       input_.const_data_ptr<S>(),
                       offset_.const_data_ptr<S>(),
                       data_or_null<S>(mask_),
                       columns_.mutable_data_ptr<S>(),
                       first_pixel};
    constexpr int kVector = 16 / sizeof(S);
    const int64_t vector = team_vector(kVector, {p.input, p.columns});
    p.log_team_size = log_team_size(grid_.deform_channels, vector);
    p.chunks = to_int32(team_chunks(grid_.deform_channels, vector, p.log_team_size));
    p.items = count * s_.deform_groups * p.chunks;
    device_.launch(vector == kVector ? columns_kernel<S, kVector> : columns_kernel<S, 1>, p,
                   p.items, p.log_team_size);
  }

  void scatter(int64_t first_pixel, int64_t count, GradientAccumulator<T>& accumulator,
               const Tensor& grad_offset, const Tensor& grad_mask) const {
    BackwardParams<S> p{grid_, columns_.const_data_ptr<S>(), input_.const_data_ptr<S>(),
                        offset_.const_data_ptr<S>(), data_or_null<S>(mask_)};
    if (grad_offset.numel() > 0) p.grad_offset = grad_offset.mutable_data_ptr<S>();
    if (grad_mask.numel() > 0) p.grad_mask = grad_mask.mutable_data_ptr<S>();
    p.first_pixel = first_pixel;
    // Vectors as wide as the atomics, which take more time than the loads do.
    constexpr int kVector = 16 / sizeof(T);
    const int64_t vector = team_vector(kVector, {p.input, p.grad_columns});
    p.log_team_size = log_team_size(grid_.deform_channels, vector);
    p.items = count * s_.deform_groups;
    const auto add = [&](const GradientSum<T>& target) {
      p.grad_input = target;
      device_.launch(vector == kVector ? backward_kernel<S, kVector> : backward_kernel<S, 1>, p,
                     p.items, p.log_team_size);
    };
    const auto bound = [](const S* data, int64_t size) {
      return MaxMagnitudeParams<S>{data, size, 1, 0, 1, 1};
    };
    const MaxMagnitudeParams<S> grad_bound = bound(p.grad_columns, count * depth_);
    const int64_t summands = count * s_.taps();
    if (mask_) {
      accumulator.template run<S>({grad_bound, bound(p.mask, mask_->numel())}, summands, add);
    } else {
      accumulator.template run<S>({grad_bound}, summands, add);
    }
  }

  const CudaDevice& device_;
  const Shape& s_;
  const Grid grid_;
  const bool channels_last_;
  const Tensor input_, offset_;
  const std::optional<Tensor> mask_;
  const Tensor weight_;                // [out channel][tap][channel of the group]
  const int64_t group_depth_, depth_;  // columns of a group, and of all groups
  const int64_t images_, pixels_, chunk_;
  const Tensor columns_;
};

Tensor forward(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
               const Tensor& weight, std::optional<Tensor> bias, std::vector<int64_t> stride,
               std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
               int64_t deform_groups) {
  const Shape s = make_shape(input, offset, mask, weight, bias, stride, padding, dilation, groups,
                             deform_groups);
  const CudaDevice device(input);
  const Tensor output = empty_image(input, {s.batch, s.out_channels, s.out_h, s.out_w},
                                    input.scalar_type(), is_channels_last(input));
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    Chunks<decltype(zero)>(device, s, input, offset, mask, weight)
        .forward(output, contiguous_tensor(bias));
  });
  return output;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients backward(const Tensor& grad_any, const Tensor& input, const Tensor& offset,
                   std::optional<Tensor> mask, const Tensor& weight, std::vector<int64_t> stride,
                   std::vector<int64_t> padding, std::vector<int64_t> dilation, int64_t groups,
                   int64_t deform_groups, bool need_input, bool need_offset, bool need_weight,
                   bool deterministic) {
  const Shape s = make_shape(input, offset, mask, weight, std::nullopt, stride, padding, dilation,
                             groups, deform_groups);
  check_shape(grad_any, "grad_output", {s.batch, s.out_channels, s.out_h, s.out_w});
  check_like(grad_any, "grad_output", input, "input");
  const CudaDevice device(input);
  const ScalarType own = input.scalar_type(), type = compute_scalar_type(own);
  const bool channels_last = is_channels_last(input);
  const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor grad_output = contiguous_tensor(grad_any, format);
  const Tensor none = empty_tensor(input, {0});
  const auto zeros = [&](bool needed, const Tensor& like) {
    if (!needed) return none;
    Tensor t = empty_image(like, shape_of(like), type, true);
    return torch::stable::zero_(t);
  };
  const Tensor grad_input = zeros(need_input, input), weight_sums = zeros(need_weight, weight);
  const Tensor grad_offset = need_offset ? empty_tensor(offset, shape_of(offset)) : none;
  const Tensor grad_mask = need_offset && mask ? empty_tensor(*mask, shape_of(*mask)) : none;
  dispatch_floating(own, [&](auto zero) {
    Chunks<decltype(zero)>(device, s, input, offset, mask, weight)
        .backward(grad_output, grad_input, grad_offset, grad_mask, weight_sums, deterministic);
  });
  Tensor grad_bias = none;
  if (need_weight)
    grad_bias =
        cast(torch::stable::sum(grad_output, std::vector<int64_t>{0, 2, 3}, false, type), own);
  return {need_input ? contiguous_tensor(cast(grad_input, own), format) : none, grad_offset,
          grad_mask, need_weight ? contiguous_tensor(cast(weight_sums, own)) : none, grad_bias};
}

}  // namespace
}  // namespace mmdcn::deform_conv2d

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("deform_conv2d", TORCH_BOX(&mmdcn::deform_conv2d::forward));
  m.impl("deform_conv2d_backward", TORCH_BOX(&mmdcn::deform_conv2d::backward));
}
