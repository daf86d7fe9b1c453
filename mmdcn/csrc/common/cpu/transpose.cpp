#include "common/cpu/transpose.h"

namespace mmdcn {
namespace {

typedef float Row __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(32)));
typedef uint16_t Narrow __attribute__((vector_size(16), aligned(2), may_alias));

// The conversions of common/convert.h, eight at a time.
MMDCN_INLINE void load_row(const float* src, Row& row) { row = *reinterpret_cast<const Row*>(src); }

MMDCN_INLINE void load_row(const uint16_t* src, Row& row) {
  row = (Row) __builtin_convertvector(*reinterpret_cast<const Narrow*>(src), Bits);
}

MMDCN_INLINE void load_row(const BFloat16* src, Row& row) {
  row = (Row)(__builtin_convertvector(*reinterpret_cast<const Narrow*>(src), Bits) << 16);
}

MMDCN_INLINE void load_row(const Half* src, Row& row) {
  const Bits h = __builtin_convertvector(*reinterpret_cast<const Narrow*>(src), Bits);
  const Bits scaled = (Bits)((Row)((h & 0x7fffu) << 13) * 0x1p112f);
  const Bits special = (Bits)((h & 0x7c00u) == 0x7c00u) & 0x7f800000u;  // infinity and NaN
  row = (Row)(scaled | special | (h & 0x8000u) << 16);
}

MMDCN_INLINE void store_row(const Row& row, float* dst) { *reinterpret_cast<Row*>(dst) = row; }

MMDCN_INLINE void store_row(const Row& row, uint16_t* dst) {
  *reinterpret_cast<Narrow*>(dst) = __builtin_convertvector((Bits)row, Narrow);
}

MMDCN_INLINE void store_row(const Row& row, BFloat16* dst) {
  const Bits bits = (Bits)row;
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits is_nan = (Bits)((bits & 0x7fffffffu) > 0x7f800000u);
  *reinterpret_cast<Narrow*>(dst) =
      __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), Narrow);
}

MMDCN_INLINE void store_row(const Row& row, Half* dst) {
  for (int i = 0; i < 8; ++i) dst[i] = convert<Half>(row[i]);
}

// Interleaves pairs of rows, then quads, then halves.
template <typename From, typename To>
MMDCN_INLINE void transpose_8x8(const From* __restrict src, int64_t ld_src, To* __restrict dst,
                                int64_t ld_dst) {
  Row a[8], b[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) load_row(src + r * ld_src, a[r]);
#pragma GCC unroll 4
  for (int r = 0; r < 8; r += 2) {
    b[r] = __builtin_shufflevector(a[r], a[r + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[r + 1] = __builtin_shufflevector(a[r], a[r + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int r = 0; r < 8; r += 4) {
    a[r] = __builtin_shufflevector(b[r], b[r + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    a[r + 1] = __builtin_shufflevector(b[r], b[r + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    a[r + 2] = __builtin_shufflevector(b[r + 1], b[r + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    a[r + 3] = __builtin_shufflevector(b[r + 1], b[r + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    store_row(__builtin_shufflevector(a[r], a[r + 4], 0, 1, 2, 3, 8, 9, 10, 11), dst + r * ld_dst);
    store_row(__builtin_shufflevector(a[r], a[r + 4], 4, 5, 6, 7, 12, 13, 14, 15),
              dst + (r + 4) * ld_dst);
  }
}

template <typename From, typename To>
MMDCN_INLINE void transpose_impl(const From* __restrict src, int64_t ld_src, To* __restrict dst,
                                 int64_t ld_dst, int64_t rows, int64_t cols) {
  constexpr int64_t kLine = 16;  // read whole cache lines before the next rows displace them
  const int64_t rows8 = rows / 8 * 8, cols8 = cols / 8 * 8;
  for (int64_t c0 = 0; c0 < cols8; c0 += kLine) {
    const int64_t c1 = std::min(c0 + kLine, cols8);
    for (int64_t r = 0; r < rows8; r += 8) {
      for (int64_t c = c0; c < c1; c += 8) {
        transpose_8x8(src + r * ld_src + c, ld_src, dst + c * ld_dst + r, ld_dst);
      }
    }
  }
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = c < cols8 ? rows8 : 0; r < rows; ++r) {
      dst[c * ld_dst + r] = convert<To>(src[r * ld_src + c]);
    }
  }
}

}  // namespace

#define MMDCN_DEFINE_TRANSPOSE(From, To)                                                      \
  MMDCN_CLONES void transpose_block(const From* src, int64_t ld_src, To* dst, int64_t ld_dst, \
                                    int64_t rows, int64_t cols) {                             \
    transpose_impl(src, ld_src, dst, ld_dst, rows, cols);                                     \
  }
MMDCN_DEFINE_TRANSPOSE(float, float)
MMDCN_DEFINE_TRANSPOSE(float, BFloat16)
MMDCN_DEFINE_TRANSPOSE(float, Half)
MMDCN_DEFINE_TRANSPOSE(BFloat16, float)
MMDCN_DEFINE_TRANSPOSE(Half, float)

// Of 16 bits without a conversion.
#define MMDCN_DEFINE_TRANSPOSE_BITS(S)                                                    \
  MMDCN_CLONES void transpose_block(const S* src, int64_t ld_src, S* dst, int64_t ld_dst, \
                                    int64_t rows, int64_t cols) {                         \
    transpose_impl(reinterpret_cast<const uint16_t*>(src), ld_src,                        \
                   reinterpret_cast<uint16_t*>(dst), ld_dst, rows, cols);                 \
  }
MMDCN_DEFINE_TRANSPOSE_BITS(BFloat16)
MMDCN_DEFINE_TRANSPOSE_BITS(Half)

}  // namespace mmdcn
