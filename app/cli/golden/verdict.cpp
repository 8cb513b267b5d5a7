// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/verdict.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace rankscope::golden {
namespace {

constexpr double k_infinity = std::numeric_limits<double>::infinity();

double multiple_of(double deviation, double tolerance)
{
    if (!std::isfinite(deviation))
        return k_infinity;
    if (tolerance > 0.0)
        return deviation / tolerance;
    return deviation == 0.0 ? 0.0 : k_infinity;
}

double relative_difference(const MatrixD& actual, const MatrixD& expected)
{
    const double norm = expected.norm();
    const double difference = (actual - expected).norm();
    return norm > 0.0 ? difference / norm : difference;
}

double share_differing(const MatrixD& actual, const MatrixD& expected)
{
    if (expected.size() == 0)
        return 0.0;
    return static_cast<double>((actual.array() != expected.array()).count())
           / static_cast<double>(expected.size());
}

} // namespace

void Verdict::deviation(const std::string& name, double multiple)
{
    compared_.insert(name);
    ++comparisons_;
    if (worst_name_.empty() || !(multiple <= worst_)) {
        worst_ = std::isnan(multiple) ? k_infinity : multiple;
        worst_name_ = name;
    }
}

void Verdict::fail(std::string reason)
{
    if (reason_.empty())
        reason_ = std::move(reason);
}

void Verdict::tensor(const std::string& name, const MatrixD& actual)
{
    const std::string expected_name = "expect." + name;
    const Json& tolerance = case_.json()["tolerance"][name];
    if (!case_.has(expected_name))
        return fail("the case holds no tensor " + expected_name);
    const MatrixD& expected = case_.tensor(expected_name);
    if (actual.rows() != expected.rows() || actual.cols() != expected.cols())
        return fail(fmt::format("{} has the shape {} × {}, expected {} × {}", name, actual.rows(),
                                actual.cols(), expected.rows(), expected.cols()));
    if (const Json* codes = tolerance.find("codes"))
        deviation(name, multiple_of(share_differing(actual, expected), codes->number()));
    else if (tolerance["f32"].is_number())
        deviation(name, multiple_of(relative_difference(actual, expected), tolerance["f32"].number()));
    else
        compared_.insert(name);
}

void Verdict::scalar(const std::string& name, double actual)
{
    const Json* expected = case_.json()["scalars"].find(name);
    const Json& tolerance = case_.json()["scalar_rtol"]["f32"];
    if (!expected || !expected->is_number())
        return fail("the case holds no scalar " + name);
    if (!tolerance.is_number())
        return leave_to_bands(name);
    scalar(name, expected->number(), actual, tolerance.number());
}

void Verdict::scalar(const std::string& name, double expected, double actual, double tolerance)
{
    const double size = std::abs(expected);
    deviation(name, multiple_of(std::abs(actual - expected) / (size > 0.0 ? size : 1.0), tolerance));
}

void Verdict::band(const std::string& name, double actual)
{
    const Json::Array* limits = case_.json()["bands"][name].array_if();
    if (!limits || limits->size() != 2)
        return fail("the case holds no band for " + name);
    const double low = (*limits)[0].number();
    const double high = (*limits)[1].number();
    deviation(name, multiple_of(std::abs(actual - 0.5 * (low + high)), 0.5 * (high - low)));
}

void Verdict::finish()
{
    for (const char* group : {"tolerance", "scalars", "bands"}) {
        const Json::Object* members = case_.json()[group].object_if();
        if (!members)
            continue;
        for (const auto& [name, value] : *members)
            if (!compared_.contains(name))
                fail(name + " was not compared");
    }
    if (comparisons_ == 0)
        fail("nothing was compared");
}

} // namespace rankscope::golden
