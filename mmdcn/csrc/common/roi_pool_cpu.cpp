// Work is cut into items (strip of 32 output channels, cell, image). The thread that has an item
// copies its part of the map into channels-last order, pools all RoIs of the image from it, and in
// the backward owns that part of the input's gradient. So there are no atomics, what is sampled
// stays in cache, and results do not depend on the number of threads.
#include "common/roi_pool_cpu.h"
#include "common/transpose.h"

namespace mmdcn {
namespace {

constexpr int64_t kStrip = 32;

// 256-bit vectors: every x86-64 level above the first has them, elsewhere they are split.
template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};
template <typename T>
constexpr int kLanes = 32 / sizeof(T);
template <typename T>
constexpr int kBlock = 4 * kLanes<T>;  // channels that are summed in registers

// The functions below take the bins in `list`; `values` and `grad` have a row of kStrip channels
// for each of them, and image and grad_image one for each pixel from first_row on.
template <typename T>
struct BinList {
  const Tap<T>* taps;
  const Bin<T>* bins;
  const int32_t* list;
  int64_t count, width;
  int32_t first_row;

  int64_t row(const Tap<T>& tap) const { return (tap.index - first_row) * width * kStrip; }
};

template <typename T>
MMDCN_INLINE void pool_impl(const BinList<T>& b, const T* image, T* values) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      Vec v0 = {}, v1 = {}, v2 = {}, v3 = {};
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        const T* row = image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          const Vec* p = reinterpret_cast<const Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[y].weight * b.taps[x].weight;
          v0 += w * p[0], v1 += w * p[1], v2 += w * p[2], v3 += w * p[3];
        }
      }
      Vec* out = reinterpret_cast<Vec*>(values + i * kStrip + c);
      const T scale = bin.scale * bin.mask;
      out[0] = scale * v0, out[1] = scale * v1, out[2] = scale * v2, out[3] = scale * v3;
    }
  }
}

// Contracts the pooled value and its derivatives along y and x, without the mask, with grad:
// 3 sums for each bin of the list.
template <typename T>
MMDCN_INLINE void contract_impl(const BinList<T>& b, const T* image, const T* grad, T* sums) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    T total[3] = {};
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      Vec v0 = {}, v1 = {}, v2 = {}, v3 = {};
      Vec y0 = {}, y1 = {}, y2 = {}, y3 = {};
      Vec x0 = {}, x1 = {}, x2 = {}, x3 = {};
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        // The sums of a row first: its taps are shared by the value and the y derivative.
        const T* row = image + b.row(b.taps[y]) + c;
        Vec r0 = {}, r1 = {}, r2 = {}, r3 = {};
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          const Vec* p = reinterpret_cast<const Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[x].weight, slope = b.taps[y].weight * b.taps[x].slope;
          r0 += w * p[0], r1 += w * p[1], r2 += w * p[2], r3 += w * p[3];
          x0 += slope * p[0], x1 += slope * p[1], x2 += slope * p[2], x3 += slope * p[3];
        }
        const T w = b.taps[y].weight, slope = b.taps[y].slope;
        v0 += w * r0, v1 += w * r1, v2 += w * r2, v3 += w * r3;
        y0 += slope * r0, y1 += slope * r1, y2 += slope * r2, y3 += slope * r3;
      }
      const Vec* g = reinterpret_cast<const Vec*>(grad + i * kStrip + c);
      const Vec v = (v0 * g[0] + v1 * g[1]) + (v2 * g[2] + v3 * g[3]);
      const Vec dy = (y0 * g[0] + y1 * g[1]) + (y2 * g[2] + y3 * g[3]);
      const Vec dx = (x0 * g[0] + x1 * g[1]) + (x2 * g[2] + x3 * g[3]);
      for (int l = 0; l < kLanes<T>; ++l) total[0] += v[l], total[1] += dy[l], total[2] += dx[l];
    }
    for (int k = 0; k < 3; ++k) sums[3 * i + k] = bin.scale * total[k];
  }
}

template <typename T>
MMDCN_INLINE void scatter_impl(const BinList<T>& b, const T* grad, T* grad_image) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      const Vec* g = reinterpret_cast<const Vec*>(grad + i * kStrip + c);
      const T scale = bin.scale * bin.mask;
      const Vec g0 = scale * g[0], g1 = scale * g[1], g2 = scale * g[2], g3 = scale * g[3];
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        T* row = grad_image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          Vec* p = reinterpret_cast<Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[y].weight * b.taps[x].weight;
          p[0] += w * g0, p[1] += w * g1, p[2] += w * g2, p[3] += w * g3;
        }
      }
    }
  }
}

#define MMDCN_ROI_POOL_LOOPS(T)                                                             \
  MMDCN_CLONES void pool(const BinList<T>& b, const T* image, T* values) {                  \
    pool_impl(b, image, values);                                                            \
  }                                                                                         \
  MMDCN_CLONES void contract(const BinList<T>& b, const T* image, const T* grad, T* sums) { \
    contract_impl(b, image, grad, sums);                                                    \
  }                                                                                         \
  MMDCN_CLONES void scatter(const BinList<T>& b, const T* grad, T* grad_image) {            \
    scatter_impl(b, grad, grad_image);                                                      \
  }
MMDCN_ROI_POOL_LOOPS(float)
MMDCN_ROI_POOL_LOOPS(double)

// What an item is: channels [channel, channel + size) of one cell of an image.
struct Item {
  int64_t strip, cell, image, channel, size, offset_group;
};

template <typename T>
class Items {
 public:
  Items(const RoiPoolShape& s, const std::vector<RoiPlan<T>>& plans)
      : s_(s),
        group_channels_(s.out_channels / s.offset_groups),
        group_strips_(ceil_div(group_channels_, kStrip)),
        rois_of_(s.batch),
        rows_of_(s.batch, PixelRange{static_cast<int32_t>(s.height), 0}),
        bins_of_(s.offset_groups * s.cells()) {
    for (int64_t r = 0; r < s.rois; ++r) {
      PixelRange& rows = rows_of_[plans[r].image];
      rows.begin = std::min(rows.begin, plans[r].rows.begin);
      rows.end = std::max(rows.end, plans[r].rows.end);
      rois_of_[plans[r].image].push_back(r);
    }
    for (int64_t g = 0; g < s.offset_groups; ++g) {
      for (int64_t b = 0; b < s.bins(); ++b) {
        bins_of_[g * s.cells() + s.cell_of(b)].push_back(static_cast<int32_t>(g * s.bins() + b));
      }
    }
  }

  int64_t strips() const { return s_.offset_groups * group_strips_; }

  // Shares the items out to threads; each calls start() once and what that returns for each item.
  template <typename Start>
  void for_each(const Start& start) const {
    const auto run = [&](int64_t begin, int64_t end) {
      const auto work = start();
      for (int64_t i = begin; i < end; ++i) {
        Item item;
        item.image = i % s_.batch;
        item.cell = i / s_.batch % s_.cells();
        item.strip = i / s_.batch / s_.cells();
        item.offset_group = item.strip / group_strips_;
        const int64_t first = item.strip % group_strips_ * kStrip;
        item.channel = item.offset_group * group_channels_ + first;
        item.size = std::min(kStrip, group_channels_ - first);
        work(item);
      }
    };
    torch::stable::parallel_for(0, strips() * s_.cells() * s_.batch, 1, run);
  }

  const std::vector<int64_t>& rois(const Item& item) const { return rois_of_[item.image]; }
  const std::vector<int32_t>& bins(const Item& item) const {
    return bins_of_[item.offset_group * s_.cells() + item.cell];
  }
  // The rows of the image that its RoIs read.
  PixelRange rows(const Item& item) const { return rows_of_[item.image]; }

 private:
  const RoiPoolShape& s_;
  int64_t group_channels_, group_strips_;
  std::vector<std::vector<int64_t>> rois_of_;
  std::vector<PixelRange> rows_of_;
  std::vector<std::vector<int32_t>> bins_of_;
};

// Copies between a strip of a map in its tensor, channels first or last, and a buffer of
// [pixel][kStrip] for the map's rows [rows.begin, rows.end).
struct StripLayout {
  StripLayout(const RoiPoolShape& s, bool channels_last)
      : pixel(channels_last ? s.channels() : 1),
        channel(channels_last ? s.cells() : s.cells() * s.pixels()),
        cell(channels_last ? 1 : s.pixels()),
        image(s.channels() * s.pixels()),
        width(s.width),
        pixels(s.pixels()) {}

  int64_t start(const Item& item) const {
    return item.image * image + item.channel * channel + item.cell * cell;
  }

  template <typename S, typename T>
  void load(const Item& item, PixelRange rows, const S* tensor, T* buffer) const {
    const int64_t first = rows.begin * width, count = (rows.end - rows.begin) * width;
    const S* src = tensor + start(item) + first * pixel;
    if (item.size < kStrip) std::fill_n(buffer, count * kStrip, T(0));
    if (pixel == 1) return transpose_block(src, channel, buffer, kStrip, item.size, count);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < item.size; ++c) {
        buffer[i * kStrip + c] = convert<T>(src[i * pixel + c * channel]);
      }
    }
  }

  // Zero outside the rows.
  template <typename S, typename T>
  void store(const Item& item, PixelRange rows, const T* buffer, S* tensor) const {
    S* dst = tensor + start(item);
    const int64_t first = rows.begin * width, last = std::max(first, rows.end * width);
    for (int64_t c = 0; c < item.size; ++c) {
      for (int64_t i = 0; i < first; ++i) dst[i * pixel + c * channel] = S(T(0));
      for (int64_t i = last; i < pixels; ++i) dst[i * pixel + c * channel] = S(T(0));
    }
    dst += first * pixel;
    if (pixel == 1) {
      return transpose_block(buffer, kStrip, dst, channel, last - first, item.size);
    }
    for (int64_t i = 0; i < last - first; ++i) {
      for (int64_t c = 0; c < item.size; ++c) {
        dst[i * pixel + c * channel] = convert<S>(buffer[i * kStrip + c]);
      }
    }
  }

  int64_t pixel, channel, cell, image, width, pixels;
};

// Copies between [bin of the list][kStrip] and the output's [channel][bin].
template <typename T, typename S>
void store_bins(const RoiPoolShape& s, const Item& item, const std::vector<int32_t>& bins,
                const T* values, S* output) {
  output += item.channel * s.bins();
  const int64_t count = static_cast<int64_t>(bins.size());
  if (count == s.bins()) {
    return transpose_block(values, kStrip, output, s.bins(), count, item.size);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bin = bins[i] % s.bins();
    for (int64_t c = 0; c < item.size; ++c) {
      output[c * s.bins() + bin] = convert<S>(values[i * kStrip + c]);
    }
  }
}

template <typename S, typename T>
void load_bins(const RoiPoolShape& s, const Item& item, const std::vector<int32_t>& bins,
               const S* output, T* values) {
  output += item.channel * s.bins();
  const int64_t count = static_cast<int64_t>(bins.size());
  if (item.size < kStrip) std::fill_n(values, count * kStrip, T(0));
  if (count == s.bins()) {
    return transpose_block(output, s.bins(), values, kStrip, item.size, count);
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bin = bins[i] % s.bins();
    for (int64_t c = 0; c < item.size; ++c) {
      values[i * kStrip + c] = convert<T>(output[c * s.bins() + bin]);
    }
  }
}

template <typename T>
BinList<T> bin_list(const RoiPoolShape& s, const RoiPlan<T>& plan, const std::vector<int32_t>& bins,
                    PixelRange rows) {
  return {plan.taps.data(), plan.bins.data(), bins.data(), static_cast<int64_t>(bins.size()),
          s.width,          rows.begin};
}

// Calls f with a value of the storage type of a tensor that is computed in T.
template <typename T, typename F>
void dispatch_storage(ScalarType type, const F& f) {
  if constexpr (sizeof(T) == 8) {
    f(double{});
  } else {
    dispatch_floating(type, [&](auto zero) {
      if constexpr (sizeof(zero) < 8) f(zero);
    });
  }
}

}  // namespace

template <typename T>
Tensor roi_pool_forward(const RoiPoolShape& s, const Tensor& input_any,
                        const std::vector<RoiPlan<T>>& plans) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : torch::stable::contiguous(input_any);
  Tensor output =
      empty_image({s.rois, s.out_channels, s.out_h, s.out_w}, input.scalar_type(), false);
  const Items<T> items(s, plans);
  const StripLayout layout(s, channels_last);
  dispatch_storage<T>(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const S* input_ptr = input.const_data_ptr<S>();
    S* output_ptr = output.mutable_data_ptr<S>();
    items.for_each([&] {
      return [&, image = make_buffer<T>(s.pixels() * kStrip),
              values = make_buffer<T>(s.bins() * kStrip)](const Item& item) {
        const std::vector<int32_t>& bins = items.bins(item);
        const PixelRange rows = items.rows(item);
        if (bins.empty()) return;
        if (rows.begin < rows.end) layout.load(item, rows, input_ptr, image.get());
        for (const int64_t r : items.rois(item)) {
          pool(bin_list(s, plans[r], bins, rows), image.get(), values.get());
          store_bins(s, item, bins, values.get(), output_ptr + r * s.out_channels * s.bins());
        }
      };
    });
  });
  return output;
}

template <typename T>
RoiPoolGradients<T> roi_pool_backward(const RoiPoolShape& s, const Tensor& grad_any,
                                      const Tensor& input_any, const std::vector<RoiPlan<T>>& plans,
                                      bool need_input, bool need_bins) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : torch::stable::contiguous(input_any);
  const Tensor grad_output = torch::stable::contiguous(grad_any);
  const ScalarType type = input.scalar_type();
  const Items<T> items(s, plans);
  const StripLayout layout(s, channels_last);

  RoiPoolGradients<T> grads;
  grads.input = need_input
                    ? empty_image({s.batch, s.channels(), s.height, s.width}, type, channels_last)
                    : torch::stable::empty({0}, type);
  // [strip][RoI][bin][3], summed over the strips of an offset group afterwards.
  const int64_t strip_sums = s.rois * s.bins() * 3;
  Buffer<T> sums = make_buffer<T>(need_bins ? items.strips() * strip_sums : 0);

  dispatch_storage<T>(type, [&](auto zero) {
    using S = decltype(zero);
    const S* input_ptr = input.const_data_ptr<S>();
    const S* grad_ptr = grad_output.const_data_ptr<S>();
    S* grad_input_ptr = need_input ? grads.input.template mutable_data_ptr<S>() : nullptr;
    items.for_each([&] {
      const int64_t size = s.pixels() * kStrip;
      return [&, image = make_buffer<T>(need_bins ? size : 0),
              grad_image = make_buffer<T>(need_input ? size : 0),
              grad = make_buffer<T>(s.bins() * kStrip),
              bin_sums = make_buffer<T>(s.bins() * 3)](const Item& item) {
        const std::vector<int32_t>& bins = items.bins(item);
        const PixelRange rows = items.rows(item);
        const int64_t pixels = std::max(0, rows.end - rows.begin) * s.width;
        if (need_bins && pixels) layout.load(item, rows, input_ptr, image.get());
        if (need_input) std::fill_n(grad_image.get(), pixels * kStrip, T(0));
        for (const int64_t r : items.rois(item)) {
          const BinList<T> list = bin_list(s, plans[r], bins, rows);
          load_bins(s, item, bins, grad_ptr + r * s.out_channels * s.bins(), grad.get());
          if (need_bins) {
            contract(list, image.get(), grad.get(), bin_sums.get());
            T* roi = sums.get() + item.strip * strip_sums + r * s.bins() * 3;
            for (int64_t i = 0; i < list.count; ++i) {
              std::copy_n(bin_sums.get() + 3 * i, 3, roi + bins[i] % s.bins() * 3);
            }
          }
          if (need_input) scatter(list, grad.get(), grad_image.get());
        }
        if (need_input) layout.store(item, rows, grad_image.get(), grad_input_ptr);
      };
    });
  });

  if (need_bins) {
    const int64_t roi_sums = s.bins() * 3, group_strips = items.strips() / s.offset_groups;
    grads.bins.assign(s.offset_groups * strip_sums, T(0));
    for (int64_t strip = 0; strip < items.strips(); ++strip) {
      const T* part = sums.get() + strip * strip_sums;
      for (int64_t r = 0; r < s.rois; ++r, part += roi_sums) {
        T* total = grads.bins.data() + (r * s.offset_groups + strip / group_strips) * roi_sums;
        for (int64_t i = 0; i < roi_sums; ++i) total[i] += part[i];
      }
    }
  }
  return grads;
}

#define MMDCN_INSTANTIATE(T)                                                                       \
  template Tensor roi_pool_forward<T>(const RoiPoolShape&, const Tensor&,                          \
                                      const std::vector<RoiPlan<T>>&);                             \
  template RoiPoolGradients<T> roi_pool_backward<T>(const RoiPoolShape&, const Tensor&,            \
                                                    const Tensor&, const std::vector<RoiPlan<T>>&, \
                                                    bool, bool);
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(double)

}  // namespace mmdcn
