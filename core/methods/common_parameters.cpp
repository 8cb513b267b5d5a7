// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/common_parameters.h"

#include "core/compute/activation_quantization.h"
#include "core/compute/grid_levels.h"

#include <fmt/format.h>

namespace rankscope {

ParameterInfo flag_parameter(std::string name, std::string title, bool fallback, std::string help)
{
    ParameterInfo info;
    info.name = std::move(name);
    info.title = std::move(title);
    info.type = ParameterType::Flag;
    info.fallback = fallback;
    info.help = std::move(help);
    return info;
}

ParameterInfo choice_parameter(std::string name, std::string title, std::vector<std::string> choices,
                               std::string help)
{
    ParameterInfo info;
    info.name = std::move(name);
    info.title = std::move(title);
    info.type = ParameterType::Choice;
    info.fallback = choices.front();
    info.choices = std::move(choices);
    info.help = std::move(help);
    return info;
}

std::vector<ParameterInfo> operator+(std::vector<ParameterInfo> left, const std::vector<ParameterInfo>& right)
{
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

std::vector<ParameterInfo> grid_parameters(int default_bits)
{
    return {
        {"bits",
         "Bits",
         ParameterType::Integer,
         std::int64_t{default_bits},
         2,
         8,
         {},
         "bits",
         "Bits of each weight in Q."},
        {"group",
         "Group",
         ParameterType::Integer,
         std::int64_t{128},
         -1,
         1 << 20,
         {},
         "inputs",
         "Consecutive inputs that share a scale; 0: one scale per output, -1: one for the whole matrix."},
        flag_parameter("symmetric", "Symmetric", false,
                       "Leaves out the zero point: fewer bits, coarser steps."),
        choice_parameter("sym_rule", "Symmetric scale", {"full", "restricted"},
                         "Which step a symmetric grid takes: over 2^b - 1 steps (full) or 2^(b-1) - 1 from "
                         "zero (restricted)."),
        choice_parameter(
            "clip_search", "Clip search", {"auto", "none", "shrink", "grid"},
            "Narrows each group's range to lower the rounding error; auto does so (shrink) at 2 bits only."),
    };
}

namespace {

GridLevels levels_of(const Parameters& parameters)
{
    const auto& values = parameters.values();
    if (!values.contains("codebook"))
        return GridLevels::Integers;
    const std::string& codebook = parameters.text("codebook");
    return codebook == "nf"       ? GridLevels::NormalFloat
           : codebook == "mxint"  ? GridLevels::MxInt
           : codebook == "kquant" ? GridLevels::Kquant
                                  : GridLevels::Integers;
}

} // namespace

UniformGrid grid_of(const Parameters& parameters)
{
    UniformGrid grid;
    grid.bits = static_cast<int>(parameters.integer("bits"));
    grid.group = parameters.integer("group");
    grid.levels = levels_of(parameters);
    if (grid.levels == GridLevels::Kquant) {
        grid.group = kquant_group(grid.bits);
        grid.symmetric = !kquant_has_minimum(grid.bits);
        return grid;
    }
    if (grid.levels != GridLevels::Integers) {
        grid.symmetric = true;
        return grid;
    }
    grid.symmetric = parameters.flag("symmetric");
    grid.rule = parameters.text("sym_rule") == "restricted" ? SymmetricRule::Restricted : SymmetricRule::Full;
    const std::string& clip = parameters.text("clip_search");
    if (clip == "shrink" || (clip == "auto" && grid.bits <= 2))
        grid.clip = ClipSearch::Shrink;
    else if (clip == "grid")
        grid.clip = ClipSearch::Grid;
    return grid;
}

ParameterInfo scalar_codebook_parameter()
{
    return choice_parameter(
        "codebook", "Codebook", {"uniform", "nf", "mxint", "kquant"},
        "What Q is made of: steps of a uniform grid, NormalFloat levels (nf: 2 to 4 bits, usual group 64), "
        "whole numbers with a shared exponent (mxint, usual group 32), or GGUF's K types (kquant: 2 to 6 "
        "bits are Q2_K to Q6_K, inputs in whole blocks of 256, group means nothing). Beyond uniform, symmetric, "
        "sym_rule and clip_search mean nothing.");
}

std::vector<ParameterInfo> codebook_parameters()
{
    return {
        choice_parameter(
            "codebook", "Codebook", {"uniform", "e8p", "nf", "mxint", "kquant"},
            "What Q is made of: steps of a uniform grid; points of the E8P lattice, eight weights at a time "
            "(e8p: 2 or 4 bits, one scale for the matrix, group means nothing); NormalFloat levels (nf: 2 to "
            "4 bits, usual group 64); whole numbers with a shared exponent (mxint, usual group 32); GGUF's K "
            "types (kquant: 2 to 6 bits are Q2_K to Q6_K, inputs in whole blocks of 256, group means "
            "nothing). "
            "Beyond uniform, symmetric, sym_rule and clip_search mean nothing."),
        choice_parameter(
            "rht", "Rotation", {"auto", "true", "false"},
            "Rotates the layer by a random Hadamard transform on both sides, so that no channel stands "
            "out; auto does so with e8p only."),
    };
}

std::string codebook_name(Codebook codebook, GridLevels levels)
{
    if (codebook == Codebook::E8P)
        return "e8p";
    switch (levels) {
    case GridLevels::Integers:
        return "uniform";
    case GridLevels::NormalFloat:
        return "nf";
    case GridLevels::MxInt:
        return "mxint";
    case GridLevels::Kquant:
        return "kquant";
    }
    return {};
}

Codebook codebook_of(const Parameters& parameters)
{
    return parameters.text("codebook") == "e8p" ? Codebook::E8P : Codebook::Uniform;
}

bool rotates(const Parameters& parameters)
{
    const std::string& rht = parameters.text("rht");
    return rht == "true" || (rht == "auto" && codebook_of(parameters) == Codebook::E8P);
}

Status check_codebook(const Parameters& parameters)
{
    const std::int64_t bits = parameters.integer("bits");
    if (codebook_of(parameters) == Codebook::E8P && bits != 2 && bits != 4)
        return usage_error(fmt::format("the E8P codebook has 2 or 4 bits, not {}", bits), {},
                           "Choose 2 or 4 bits, or the uniform codebook.");
    const GridLevels levels = levels_of(parameters);
    if (has_bits(levels, static_cast<int>(bits)))
        return {};
    if (levels == GridLevels::Kquant)
        return usage_error(fmt::format("the K types have 2 to 6 bits, not {}", bits), {},
                           "Choose 2 to 6 bits, or the uniform codebook.");
    return usage_error(fmt::format("the NormalFloat codebook has 2 to 4 bits, not {}", bits), {},
                       "Choose 2, 3 or 4 bits, or the uniform codebook.");
}

ParameterInfo rank_parameter()
{
    return {"rank",
            "Rank",
            ParameterType::Integer,
            std::int64_t{64},
            0,
            1 << 20,
            {},
            "",
            "Columns of L and rows of R; 0 leaves the low-rank part out."};
}

std::vector<ParameterInfo> factor_parameters()
{
    return {
        choice_parameter(
            "factor_bits", "Factor bits", {"16", "8", "4"},
            "Bits of each number in L and R: 16 as they are, 8 whole numbers, 4 points of the E8P "
            "lattice in two stages."),
        choice_parameter(
            "factor_scale", "Factor scales", {"component", "matrix"},
            "Factors of 8 and 4 bits: a scale for each column of L and row of R, or one for each "
            "factor."),
        {"lplr_iterations",
         "Factor iterations",
         ParameterType::Integer,
         std::int64_t{10},
         1,
         1000,
         {},
         "",
         "Factors of 8 and 4 bits: rounds in which L and R are fitted to each other after rounding; the best "
         "pair "
         "is taken."},
    };
}

FactorOptions factors_of(const Parameters& parameters)
{
    const std::string& bits = parameters.text("factor_bits");
    return {bits == "4"   ? 4
            : bits == "8" ? 8
                          : 16,
            parameters.text("factor_scale") == "component",
            static_cast<int>(parameters.integer("lplr_iterations"))};
}

std::vector<ParameterInfo> activation_parameters(double default_clip)
{
    return {{"activation_bits",
             "Activation bits",
             ParameterType::Integer,
             std::int64_t{4},
             2,
             k_unquantized_bits,
             {},
             "bits",
             "Bits to which each token of the layer's input is rounded before it meets Q; 16: it is not."},
            {"clip",
             "Activation clip",
             ParameterType::Real,
             default_clip,
             0.1,
             1.0,
             {},
             "",
             "Share of a token's largest value at which its range ends."}};
}

ParameterInfo damp_parameter()
{
    return {"damp",
            "Damping",
            ParameterType::Real,
            0.01,
            0.0,
            1.0,
            {},
            "",
            "Share of the mean second moment that is added to every channel's, so that the moments can be "
            "factorised."};
}

ParameterInfo act_order_parameter()
{
    return flag_parameter(
        "act_order", "Activation order", true,
        "Rounds the channels with the largest activations first, while later ones can still make up for it.");
}

ParameterInfo tune_passes_parameter()
{
    return {"tune_passes",
            "Tuning passes",
            ParameterType::Integer,
            std::int64_t{2},
            0,
            100,
            {},
            "",
            "Passes of coordinate descent over the finished codes; each can only lower the error."};
}

ParameterInfo iterations_parameter()
{
    return {"iterations",
            "Iterations",
            ParameterType::Integer,
            std::int64_t{15},
            1,
            1000,
            {},
            "",
            "Rounds of the alternation between Q and L·R at most; the best one is returned."};
}

ParameterInfo early_stop_parameter()
{
    return flag_parameter("early_stop", "Early stop", true,
                          "Ends when three iterations in a row have not lowered the best error by 0.1 %.");
}

} // namespace rankscope
