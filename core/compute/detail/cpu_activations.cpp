// SPDX-License-Identifier: GPL-3.0-or-later
// What families beyond Llama need between their products: LayerNorm, other activations, soft caps.
#include "core/compute/detail/cpu_backend.h"

#include <cmath>
#include <numbers>

namespace rankscope::detail {
namespace {

constexpr Index k_stretch = 16384;

template <class T>
T activated(T x, Activation activation)
{
    switch (activation) {
    case Activation::Silu:
        return x / (T(1) + std::exp(-x));
    case Activation::Gelu:
        return T(0.5) * x * (T(1) + std::erf(x / std::numbers::sqrt2_v<T>));
    case Activation::GeluTanh: {
        const T slope = std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;
        return T(0.5) * x * (T(1) + std::tanh(slope * (x + T(0.044715) * x * x * x)));
    }
    case Activation::Relu:
        return x < T(0) ? T(0) : x; // NaN stays NaN
    }
    return x;
}

/// Calls body(matrix, first, count) for stretches of a buffer's elements.
template <class Body>
void for_elements(Buffer& x, const Body& body)
{
    if (x.empty())
        return;
    with_elements(x, [&](auto& matrix) {
        for_stretches(matrix.size(), k_stretch,
                      [&](Index first, Index count) { body(matrix, first, first + count); });
    });
}

/// One token: moments in float64, so that wide rows lose nothing.
template <class T>
void normalize(const T* in, const T* gain, const T* bias, T* out, Index width, double epsilon)
{
    const auto x = Eigen::Map<const Eigen::Array<T, 1, Eigen::Dynamic>>(in, width).template cast<double>();
    const double mean = x.sum() / static_cast<double>(width);
    const double variance = (x - mean).square().sum() / static_cast<double>(width);
    const double scale = 1.0 / std::sqrt(variance + epsilon);
    for (Index i = 0; i < width; ++i)
        out[i] = static_cast<T>((static_cast<double>(in[i]) - mean) * scale) * gain[i] + bias[i];
}

} // namespace

Buffer CpuBackend::layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias, double epsilon)
{
    const char* operation = "layer_norm";
    require(gain.rows() == 1 && gain.cols() == x.cols(), operation, "the gain has another width");
    require(bias.rows() == 1 && bias.cols() == x.cols(), operation, "the bias has another width");
    require(gain.precision() == x.precision() && bias.precision() == x.precision(), operation,
            "precisions differ");
    if (x.empty())
        return allocate(x.rows(), x.cols(), x.precision());
    return with_elements(x, [&](const auto& in) {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        const auto& factors = elements<T>(gain);
        const auto& offsets = elements<T>(bias);
        RowMajor<T> out(in.rows(), in.cols());
        for_stretches(in.rows(), rows_per_task(in.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                normalize<T>(in.row(i).data(), factors.data(), offsets.data(), out.row(i).data(), in.cols(),
                             epsilon);
        });
        return make_buffer(std::move(out));
    });
}

void CpuBackend::activate(Buffer& x, Activation activation)
{
    for_elements(x, [activation](auto& matrix, Index first, Index end) {
        for (Index i = first; i < end; ++i)
            matrix.data()[i] = activated(matrix.data()[i], activation);
    });
}

void CpuBackend::activate_multiply(Buffer& gate, const Buffer& up, Activation activation)
{
    if (activation == Activation::Silu)
        return silu_multiply(gate, up);
    require(gate.rows() == up.rows() && gate.cols() == up.cols(), "activate_multiply", "shapes differ");
    require(gate.precision() == up.precision(), "activate_multiply", "precisions differ");
    for_elements(gate, [&](auto& matrix, Index first, Index end) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const T* factors = elements<T>(up).data();
        for (Index i = first; i < end; ++i)
            matrix.data()[i] = activated(matrix.data()[i], activation) * factors[i];
    });
}

void CpuBackend::soft_cap(Buffer& x, double cap)
{
    require(cap > 0.0, "soft_cap", "the cap is not positive");
    for_elements(x, [cap](auto& matrix, Index first, Index end) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        for (Index i = first; i < end; ++i)
            matrix.data()[i] = static_cast<T>(cap) * std::tanh(matrix.data()[i] / static_cast<T>(cap));
    });
}

} // namespace rankscope::detail
