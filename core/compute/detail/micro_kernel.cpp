// SPDX-License-Identifier: GPL-3.0-or-later
//
// Each kernel keeps its tile of the result in registers: with AVX-512 8 rows × 3 vectors, which leaves the
// load ports idle half of the time (11 loads beside 24 multiply-adds a step), so that the left factor needs
// no packing.
#include "core/compute/detail/micro_kernel.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#define RANKSCOPE_X86_KERNELS 1
#include <immintrin.h>
#endif

#define RANKSCOPE_UNROLL _Pragma("GCC unroll 16")

namespace rankscope::detail {
namespace {

/// Cuts a tile into pieces of at most `rows` × `cols` and calls the kernel that is made for a piece's size:
/// kernels[rows − 1][vectors − 1], vectors of `width` columns.
template <int rows, int vectors, Index width, class Tile>
void in_pieces(const Tile& tile, const std::array<std::array<void (*)(const Tile&), vectors>, rows>& kernels)
{
    for (Index i = 0; i < tile.rows; i += rows) {
        const Index height = std::min<Index>(rows, tile.rows - i);
        for (Index j = 0; j < tile.cols; j += vectors * width) {
            Tile piece = tile;
            piece.a += i * tile.a_row;
            piece.b += j;
            piece.c += i * tile.c_row + j;
            const Index across = std::min<Index>(vectors, (tile.cols - j) / width);
            kernels[static_cast<std::size_t>(height - 1)][static_cast<std::size_t>(across - 1)](piece);
        }
    }
}

// Portable: vectors of 16 bytes, which every CPU has
// ------------------------------------------------------------

template <class T>
struct Portable {
    typedef T Vector __attribute__((vector_size(16), aligned(alignof(T)), may_alias));
    static constexpr Index k_width = 16 / sizeof(T);
    using Tile = ProductTile<T>;

    template <int rows, int vectors>
    static void run(const Tile& tile)
    {
        Vector sums[rows][vectors] = {};
        const T* a = tile.a;
        const T* b = tile.b;
        for (Index k = 0; k < tile.steps; ++k) {
            RANKSCOPE_UNROLL
            for (int v = 0; v < vectors; ++v) {
                const Vector right = *reinterpret_cast<const Vector*>(b + v * k_width);
                RANKSCOPE_UNROLL
                for (int r = 0; r < rows; ++r)
                    sums[r][v] += right * a[r * tile.a_row];
            }
            a += tile.a_step;
            b += tile.b_step;
        }
        for (int r = 0; r < rows; ++r) {
            for (int v = 0; v < vectors; ++v) {
                auto* target = reinterpret_cast<Vector*>(tile.c + r * tile.c_row + v * k_width);
                const Vector product = sums[r][v] * tile.alpha;
                *target = tile.beta == T(0) ? product : product + *target * tile.beta;
            }
        }
    }

    static void all(const Tile& tile)
    {
        static constexpr std::array<std::array<void (*)(const Tile&), 2>, 4> k_table = {{
            {run<1, 1>, run<1, 2>},
            {run<2, 1>, run<2, 2>},
            {run<3, 1>, run<3, 2>},
            {run<4, 1>, run<4, 2>},
        }};
        in_pieces<4, 2, k_width>(tile, k_table);
    }
};

constexpr MicroKernels k_portable = {"portable", Portable<float>::all, Portable<double>::all, nullptr};

#ifdef RANKSCOPE_X86_KERNELS

#define RANKSCOPE_AVX2 __attribute__((target("avx2,fma")))
#define RANKSCOPE_AVX512 __attribute__((target("avx512f")))
#define RANKSCOPE_AVX512_BF16 __attribute__((target("avx512f,avx512bf16")))

// AVX2: 4 rows × 3 vectors
// ---------------------------------------------------------------------------------------

template <int rows, int vectors>
RANKSCOPE_AVX2 void avx2_floats(const FloatTile& tile)
{
    __m256 sums[rows][vectors];
    RANKSCOPE_UNROLL
    for (int r = 0; r < rows; ++r) {
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v)
            sums[r][v] = _mm256_setzero_ps();
    }
    const float* a = tile.a;
    const float* b = tile.b;
    const Index a_row = tile.a_row;
    for (Index k = 0; k < tile.steps; ++k) {
        __m256 right[vectors];
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v)
            right[v] = _mm256_loadu_ps(b + 8 * v);
        RANKSCOPE_UNROLL
        for (int r = 0; r < rows; ++r) {
            const __m256 left = _mm256_set1_ps(a[r * a_row]);
            RANKSCOPE_UNROLL
            for (int v = 0; v < vectors; ++v)
                sums[r][v] = _mm256_fmadd_ps(left, right[v], sums[r][v]);
        }
        a += tile.a_step;
        b += tile.b_step;
    }
    const __m256 alpha = _mm256_set1_ps(tile.alpha);
    const __m256 beta = _mm256_set1_ps(tile.beta);
    RANKSCOPE_UNROLL
    for (int r = 0; r < rows; ++r) {
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v) {
            float* target = tile.c + r * tile.c_row + 8 * v;
            __m256 value = _mm256_mul_ps(sums[r][v], alpha);
            if (tile.beta != 0.0F)
                value = _mm256_fmadd_ps(_mm256_loadu_ps(target), beta, value);
            _mm256_storeu_ps(target, value);
        }
    }
}

void avx2_floats_all(const FloatTile& tile)
{
    static constexpr std::array<std::array<void (*)(const FloatTile&), 3>, 4> k_table = {{
        {avx2_floats<1, 1>, avx2_floats<1, 2>, avx2_floats<1, 3>},
        {avx2_floats<2, 1>, avx2_floats<2, 2>, avx2_floats<2, 3>},
        {avx2_floats<3, 1>, avx2_floats<3, 2>, avx2_floats<3, 3>},
        {avx2_floats<4, 1>, avx2_floats<4, 2>, avx2_floats<4, 3>},
    }};
    in_pieces<4, 3, 8>(tile, k_table);
}

// AVX-512: 8 rows × 3 vectors
// ------------------------------------------------------------------------------------

/// c = alpha · sums + beta · c.
template <int rows, int vectors, class Tile>
RANKSCOPE_AVX512 inline void store_sums(const Tile& tile, const __m512 (&sums)[rows][vectors])
{
    const __m512 alpha = _mm512_set1_ps(tile.alpha);
    const __m512 beta = _mm512_set1_ps(tile.beta);
    RANKSCOPE_UNROLL
    for (int r = 0; r < rows; ++r) {
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v) {
            float* target = tile.c + r * tile.c_row + 16 * v;
            __m512 value = _mm512_mul_ps(sums[r][v], alpha);
            if (tile.beta != 0.0F)
                value = _mm512_fmadd_ps(_mm512_loadu_ps(target), beta, value);
            _mm512_storeu_ps(target, value);
        }
    }
}

/// The result's lines come while the products run.
template <int rows, int vectors, class Tile>
RANKSCOPE_AVX512 inline void start_sums(const Tile& tile, __m512 (&sums)[rows][vectors])
{
    RANKSCOPE_UNROLL
    for (int r = 0; r < rows; ++r) {
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v) {
            sums[r][v] = _mm512_setzero_ps();
            _mm_prefetch(reinterpret_cast<const char*>(tile.c + r * tile.c_row + 16 * v), _MM_HINT_T0);
        }
    }
}

template <int rows, int vectors>
RANKSCOPE_AVX512 void avx512_floats(const FloatTile& tile)
{
    __m512 sums[rows][vectors];
    start_sums(tile, sums);
    const float* a = tile.a;
    const float* b = tile.b;
    const Index a_row = tile.a_row;
    for (Index k = 0; k < tile.steps; ++k) {
        __m512 right[vectors];
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v)
            right[v] = _mm512_loadu_ps(b + 16 * v);
        RANKSCOPE_UNROLL
        for (int r = 0; r < rows; ++r) {
            const __m512 left = _mm512_set1_ps(a[r * a_row]);
            RANKSCOPE_UNROLL
            for (int v = 0; v < vectors; ++v)
                sums[r][v] = _mm512_fmadd_ps(left, right[v], sums[r][v]);
        }
        a += tile.a_step;
        b += tile.b_step;
    }
    store_sums(tile, sums);
}

template <int rows, int vectors>
RANKSCOPE_AVX512_BF16 void avx512_bfloats(const BfloatTile& tile)
{
    __m512 sums[rows][vectors];
    start_sums(tile, sums);
    const BfloatPair* a = tile.a;
    const BfloatPair* b = tile.b;
    const Index a_row = tile.a_row;
    for (Index k = 0; k < tile.steps; ++k) {
        __m512bh right[vectors];
        RANKSCOPE_UNROLL
        for (int v = 0; v < vectors; ++v)
            right[v] = __builtin_bit_cast(__m512bh, _mm512_loadu_si512(b + 16 * v));
        RANKSCOPE_UNROLL
        for (int r = 0; r < rows; ++r) {
            const auto left = __builtin_bit_cast(__m512bh, _mm512_set1_epi32(static_cast<int>(a[r * a_row])));
            RANKSCOPE_UNROLL
            for (int v = 0; v < vectors; ++v)
                sums[r][v] = _mm512_dpbf16_ps(sums[r][v], left, right[v]);
        }
        a += tile.a_step;
        b += tile.b_step;
    }
    store_sums(tile, sums);
}

template <class Tile>
using Table512 = std::array<std::array<void (*)(const Tile&), 3>, 8>;

template <std::size_t... rows>
constexpr Table512<FloatTile> float_table(std::index_sequence<rows...>)
{
    return {{{avx512_floats<rows + 1, 1>, avx512_floats<rows + 1, 2>, avx512_floats<rows + 1, 3>}...}};
}

template <std::size_t... rows>
constexpr Table512<BfloatTile> bfloat_table(std::index_sequence<rows...>)
{
    return {{{avx512_bfloats<rows + 1, 1>, avx512_bfloats<rows + 1, 2>, avx512_bfloats<rows + 1, 3>}...}};
}

void avx512_floats_all(const FloatTile& tile)
{
    static constexpr auto k_table = float_table(std::make_index_sequence<8>());
    in_pieces<8, 3, 16>(tile, k_table);
}

void avx512_bfloats_all(const BfloatTile& tile)
{
    static constexpr auto k_table = bfloat_table(std::make_index_sequence<8>());
    in_pieces<8, 3, 16>(tile, k_table);
}

constexpr MicroKernels k_avx2 = {"AVX2", avx2_floats_all, Portable<double>::all, nullptr};
constexpr MicroKernels k_avx512 = {"AVX-512", avx512_floats_all, Portable<double>::all, nullptr};
constexpr MicroKernels k_avx512_bf16 = {"AVX-512 with bfloat16", avx512_floats_all, Portable<double>::all,
                                        avx512_bfloats_all};

#endif

std::vector<const MicroKernels*> usable_kernels()
{
    std::vector<const MicroKernels*> kernels;
#ifdef RANKSCOPE_X86_KERNELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16"))
        kernels.push_back(&k_avx512_bf16);
    if (__builtin_cpu_supports("avx512f"))
        kernels.push_back(&k_avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        kernels.push_back(&k_avx2);
#endif
    kernels.push_back(&k_portable);
    return kernels;
}

} // namespace

std::span<const MicroKernels* const> micro_kernels()
{
    static const std::vector<const MicroKernels*> kernels = usable_kernels();
    return kernels;
}

} // namespace rankscope::detail
