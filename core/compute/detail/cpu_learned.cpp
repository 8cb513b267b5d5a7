// SPDX-License-Identifier: GPL-3.0-or-later
// Learned rounding and Adam on the CPU (methods-learned §1.1, §1.2): each weight is touched once a pass.
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/grid_fit.h"
#include "core/compute/detail/vector_math.h"
#include "core/compute/learned_check.h"

#include <cmath>

namespace rankscope::detail {
namespace {

constexpr Index k_row_stretch = 32; // rows of a task: fixed, because column sums go over it
constexpr Index k_chunk = 512;      // weights whose terms wait for their sum

/// One row's stretch of weights that share a scale.
template <class T>
struct Stretch {
    const T* exponent;
    const T* columns;
    T row;
    T scale; ///< s₁
    T low, high;
    Index count;
};

template <class T>
RANKSCOPE_INLINE T exponential(T x)
{
    if constexpr (std::is_same_v<T, float>)
        return exp_float(x);
    else
        return exp_double(x);
}

template <class T>
RANKSCOPE_INLINE void round_stretch(const Stretch<T>& at, const T* w, T* values, T* ratio)
{
    for (Index i = 0; i < at.count; ++i) {
        const T v = w[i] / (at.scale * exponential(at.exponent[i] + (at.row + at.columns[i])));
        ratio[i] = v;
        values[i] = at.scale * grid_code(v, at.low, at.high);
    }
}

RANKSCOPE_MULTIARCH
void round_floats(const Stretch<float>& at, const float* w, float* values, float* ratio)
{
    round_stretch(at, w, values, ratio);
}

RANKSCOPE_MULTIARCH
void round_doubles(const Stretch<double>& at, const double* w, double* values, double* ratio)
{
    round_stretch(at, w, values, ratio);
}

void round(const Stretch<float>& at, const float* w, float* values, float* ratio)
{
    round_floats(at, w, values, ratio);
}
void round(const Stretch<double>& at, const double* w, double* values, double* ratio)
{
    round_doubles(at, w, values, ratio);
}

/// D, and G ⊙ s₁ ⊙ code + D for the sum over the group. at most k_chunk weights.
template <class T>
RANKSCOPE_INLINE void gradient_stretch(const Stretch<T>& at, const T* ratio, const T* slope, T* d, T* terms)
{
    for (Index i = 0; i < at.count; ++i) {
        // Codes one beyond the ends tell what the clamp cuts off.
        const T wide = grid_code(ratio[i], at.low - T(1), at.high + T(1));
        const T above = wide > at.low ? wide : at.low;
        const T code = above < at.high ? above : at.high;
        const T scaled = slope[i] * at.scale;
        const T inside = wide == code ? scaled * ratio[i] : T(0);
        d[i] = -inside;
        terms[i] = scaled * code - inside;
    }
}

RANKSCOPE_MULTIARCH
void gradient_floats(const Stretch<float>& at, const float* ratio, const float* slope, float* d, float* terms)
{
    gradient_stretch(at, ratio, slope, d, terms);
}

RANKSCOPE_MULTIARCH
void gradient_doubles(const Stretch<double>& at, const double* ratio, const double* slope, double* d,
                      double* terms)
{
    gradient_stretch(at, ratio, slope, d, terms);
}

void gradient(const Stretch<float>& at, const float* ratio, const float* slope, float* d, float* terms)
{
    gradient_floats(at, ratio, slope, d, terms);
}
void gradient(const Stretch<double>& at, const double* ratio, const double* slope, double* d, double* terms)
{
    gradient_doubles(at, ratio, slope, d, terms);
}

/// Calls body(row, first column, stretch) for each row in [first, first + count) and group.
template <class T>
class Stretches {
public:
    Stretches(const LearnedGrid& grid, Index cols)
        : grid_(grid), cols_(cols), span_(static_cast<T>((1 << grid.grid.bits) - 1)),
          columns_(grid.columns.empty() ? RowMajor<T>(RowMajor<T>::Zero(1, cols)) : elements<T>(grid.columns))
    {}

    template <class Body>
    void each(Index row, Index most, const Body& body) const
    {
        const Index width = grid_.grid.group_width(cols_);
        for (Index group = 0; group * width < cols_; ++group) {
            const T low = grid_.grid.symmetric ? -static_cast<T>(1 << (grid_.grid.bits - 1))
                                               : -elements<T>(grid_.zeros)(row, group);
            const T scale =
                elements<T>(grid_.scales)(row, group) * exponential(elements<T>(grid_.shift)(row, group));
            const Index end = std::min(cols_, (group + 1) * width);
            for (Index col = group * width; col < end; col += most)
                body(group, col,
                     Stretch<T>{elements<T>(grid_.exponent).row(row).data() + col, columns_.data() + col,
                                elements<T>(grid_.rows)(row, 0), scale, low, low + span_,
                                std::min(most, end - col)});
        }
    }

private:
    const LearnedGrid& grid_;
    Index cols_;
    T span_;
    RowMajor<T> columns_;
};

template <class T>
LearnedRounding rounded(const RowMajor<T>& w, const LearnedGrid& grid)
{
    RowMajor<T> values(w.rows(), w.cols());
    RowMajor<T> ratio(w.rows(), w.cols());
    const Stretches<T> stretches(grid, w.cols());
    for_stretches(w.rows(), k_row_stretch, [&](Index first, Index count) {
        for (Index row = first; row < first + count; ++row)
            stretches.each(row, w.cols(), [&](Index, Index col, const Stretch<T>& at) {
                round(at, w.row(row).data() + col, values.row(row).data() + col, ratio.row(row).data() + col);
            });
    });
    return {make_buffer(std::move(values)), make_buffer(std::move(ratio))};
}

template <class T>
LearnedGradient gradients(const RowMajor<T>& slope, const RowMajor<T>& ratio, const LearnedGrid& grid)
{
    const Index groups = grid.grid.groups(slope.cols());
    RowMajor<T> d(slope.rows(), slope.cols());
    RowMajor<T> dshift(slope.rows(), groups);
    RowMajor<T> drows(slope.rows(), 1);
    MatrixD columns = MatrixD::Zero((slope.rows() + k_row_stretch - 1) / k_row_stretch, slope.cols());
    const Stretches<T> stretches(grid, slope.cols());
    for_stretches(slope.rows(), k_row_stretch, [&](Index first, Index count) {
        T terms[k_chunk];
        RowMajor<T> sums = RowMajor<T>::Zero(1, slope.cols());
        for (Index row = first; row < first + count; ++row) {
            VectorD of_group = VectorD::Zero(groups);
            double of_row = 0.0;
            stretches.each(row, k_chunk, [&](Index group, Index col, const Stretch<T>& at) {
                T* out = d.row(row).data() + col;
                gradient(at, ratio.row(row).data() + col, slope.row(row).data() + col, out, terms);
                of_group[group] += lane_sum<double>(terms, at.count);
                of_row += lane_sum<double>(out, at.count);
            });
            dshift.row(row) = of_group.transpose().template cast<T>();
            drows(row, 0) = static_cast<T>(of_row);
            sums += d.row(row);
        }
        columns.row(first / k_row_stretch) = sums.template cast<double>();
    });
    Buffer dcolumns;
    if (!grid.columns.empty())
        dcolumns = make_buffer(RowMajor<T>(columns.colwise().sum().template cast<T>()));
    return {make_buffer(std::move(d)), make_buffer(std::move(dshift)), make_buffer(std::move(drows)),
            dcolumns};
}

/// What one step multiplies by.
template <class T>
struct AdamFactors {
    T keep1, take1, keep2, take2, rate, root, epsilon;

    explicit AdamFactors(const AdamStep& step)
        : keep1(static_cast<T>(step.beta1)), take1(static_cast<T>(1.0 - step.beta1)),
          keep2(static_cast<T>(step.beta2)), take2(static_cast<T>(1.0 - step.beta2)),
          rate(static_cast<T>(step.learning_rate
                              / (1.0 - std::pow(step.beta1, static_cast<double>(step.step))))),
          root(static_cast<T>(1.0 / (1.0 - std::pow(step.beta2, static_cast<double>(step.step))))),
          epsilon(static_cast<T>(step.epsilon))
    {}
};

template <class T>
void move(T* parameter, const T* gradient, T* first, T* second, Index count, const AdamFactors<T>& by)
{
    using Array = Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>>;
    using ConstArray = Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>;
    for (Index start = 0; start < count; start += k_chunk) { // what fits the first cache
        const Index length = std::min(k_chunk, count - start);
        const ConstArray g(gradient + start, length);
        Array m(first + start, length);
        Array v(second + start, length);
        m = by.keep1 * m + by.take1 * g;
        v = by.keep2 * v + by.take2 * g.square();
        Array(parameter + start, length) -= by.rate * m / ((v * by.root).sqrt() + by.epsilon);
    }
}

} // namespace

LearnedRounding CpuBackend::round_learned(const Buffer& w, const LearnedGrid& grid)
{
    const char* misfit = learned_misfit(w, grid);
    require(misfit == nullptr, "round_learned", misfit);
    return with_elements(w, [&](const auto& matrix) { return rounded(matrix, grid); });
}

LearnedGradient CpuBackend::round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                                   const LearnedGrid& grid)
{
    const char* misfit = learned_misfit(dvalues, grid);
    require(misfit == nullptr, "round_learned_backward", misfit);
    require(ratio.rows() == dvalues.rows() && ratio.cols() == dvalues.cols()
                && ratio.precision() == dvalues.precision(),
            "round_learned_backward", "ratio and gradient differ in shape");
    return with_elements(dvalues, [&](const auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        return gradients(matrix, elements<T>(ratio), grid);
    });
}

void CpuBackend::adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                           const AdamStep& step)
{
    for (const Buffer* other :
         {&gradient, const_cast<const Buffer*>(&first), const_cast<const Buffer*>(&second)})
        require(other->rows() == parameter.rows() && other->cols() == parameter.cols()
                    && other->precision() == parameter.precision(),
                "adam_step", "shapes or precisions differ");
    if (parameter.empty())
        return;
    with_elements(parameter, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const AdamFactors<T> factors(step);
        for_stretches(matrix.size(), 16384, [&](Index begin, Index count) {
            move(matrix.data() + begin, elements<T>(gradient).data() + begin,
                 elements<T>(first).data() + begin, elements<T>(second).data() + begin, count, factors);
        });
    });
}

} // namespace rankscope::detail
