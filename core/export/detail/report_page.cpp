// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/report_page.h"

#include "core/base/byte_size.h"
#include "core/export/detail/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace rankscope::export_common {
namespace {

/// Colors by Okabe and Ito, which stay apart for color-blind eyes; on dark, lightened.
constexpr const char* k_style = R"css(
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2327; --soft: #5d6a72; --rule: #d9dfe3; --panel: #f5f7f8; --accent: #0b6aa2;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #a6761d; --c5: #56b4e9; --c6: #6a51a3; --c7: #525252; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14191d; --ink: #e6ebee; --soft: #9aa8b1; --rule: #323c43; --panel: #1c2328; --accent: #6cb8e6;
  --c0: #4da3dc; --c1: #f08a4b; --c2: #3cc49c; --c3: #e3a1c7; --c4: #d3a95a; --c5: #8fd0f5; --c6: #a99ad8; --c7: #b0b0b0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 12px; font-weight: 650; }
p { margin: 0 0 12px; max-width: 70ch; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 24px 0 0; }
.tile { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px; }
.tile b { display: block; font-size: 23px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 20px; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 8px; padding: 14px 14px 6px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 6px; }
svg.chart { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, "Noto Sans", sans-serif; } svg .label { fill: var(--ink); }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1.2; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--c0); } .line.s1 { stroke: var(--c1); } .line.s2 { stroke: var(--c2); } .line.s3 { stroke: var(--c3); }
.line.s4 { stroke: var(--c4); } .line.s5 { stroke: var(--c5); } .line.s6 { stroke: var(--c6); } .line.s7 { stroke: var(--c7); }
.dot.s0, .fill.s0 { fill: var(--c0); } .dot.s1, .fill.s1 { fill: var(--c1); } .dot.s2, .fill.s2 { fill: var(--c2); }
.dot.s3, .fill.s3 { fill: var(--c3); } .dot.s4, .fill.s4 { fill: var(--c4); } .dot.s5, .fill.s5 { fill: var(--c5); }
.dot.s6, .fill.s6 { fill: var(--c6); } .dot.s7, .fill.s7 { fill: var(--c7); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1.5px solid var(--soft); padding: 6px 10px 6px 0; }
td { border-bottom: 1px solid var(--rule); padding: 5px 10px 5px 0; vertical-align: top; }
th.n, td.n { text-align: right; white-space: nowrap; }
td.setting { overflow-wrap: anywhere; min-width: 22em; }
td.error { background: linear-gradient(to left, color-mix(in srgb, var(--c1) 28%, transparent) var(--v), transparent var(--v)); }
code, pre { font: 12.5px/1.5 ui-monospace, "Noto Sans Mono", monospace; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 48px; border-top: 1px solid var(--rule); padding-top: 12px; color: var(--soft); font-size: 13px; }
@page { size: A4; margin: 16mm 14mm; }
@media print { :root { color-scheme: light;
  --paper: #ffffff; --ink: #000000; --soft: #48535a; --rule: #c9d0d4; --panel: #ffffff; --accent: #0b6aa2;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #a6761d; --c5: #56b4e9; --c6: #6a51a3; --c7: #525252; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } h2 { margin-top: 20pt; break-after: avoid; }
  figure, .tile, pre, tr { break-inside: avoid; } thead { display: table-header-group; } .wide { overflow: visible; }
  .plots { grid-template-columns: 1fr 1fr; } table { font-size: 8.5pt; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)css";

std::string number(double value) { return fmt::format("{:.4g}", value); }

std::string tile(const std::string& value, const std::string& what)
{
    return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escaped(value), escaped(what));
}

/// Titles of the methods that the run uses, and where they come from.
std::string methods_sentence(const ReportData& data)
{
    std::set<std::string> ids;
    for (const ReportRow& row : data.rows)
        ids.insert(row.result.method);
    std::string text;
    for (const std::string& id : ids) {
        const Method* method = find_method(id);
        text += text.empty() ? "" : "; ";
        text += method ? fmt::format("{} ({})", method->info().title, method->info().source) : id;
    }
    return text;
}

std::string header(const ReportData& data)
{
    const double ratio = data.compressed_bytes() > 0 ? static_cast<double>(data.original_bytes())
                                                           / static_cast<double>(data.compressed_bytes())
                                                     : 0.0;
    std::string html = fmt::format(
        "<h1>{}</h1>\n<p class=\"soft\">{} · {} layers compressed as W ≈ Q + L·R by {}</p>\n",
        escaped(data.model), escaped(data.architecture), data.rows.size(), escaped(methods_sentence(data)));
    html += "<div class=\"tiles\">\n";
    html += tile(number(data.bits_per_weight()), "bits per weight, scales and factors included");
    html += tile(format_byte_size(data.compressed_bytes()),
                 "of " + format_byte_size(data.original_bytes()) + " in these layers, "
                     + fmt::format("{:.1f}", ratio) + " times less");
    html += tile(number(data.mean_activation_error()), "mean relative activation error of a layer");
    if (!data.evaluations.empty()) {
        const Json& best = data.evaluations.front();
        const Json& original = best["original"]["perplexity"];
        html += tile(number(best["perplexity"].number()),
                     original.is_number() ? "perplexity, " + number(original.number()) + " before"
                                          : "perplexity");
    }
    return html + "</div>\n";
}

std::string evaluation_table(const ReportData& data)
{
    std::string html = "<h2>Perplexity</h2>\n";
    if (data.evaluations.empty())
        return html
               + "<p class=\"soft\">Not measured yet: <code>rankscope-cli evaluate RUN --text FILE</code> "
                 "before the "
                 "export puts it here.</p>\n";
    html += "<div class=\"wide\"><table><thead><tr><th>Text</th><th>Protocol</th><th class=\"n\">Windows × "
            "length</th>"
            "<th class=\"n\">Original</th><th class=\"n\">Compressed</th><th class=\"n\">±</th>"
            "<th class=\"n\">Change</th><th class=\"n\">Mean KL</th><th class=\"n\">Same top "
            "token</th></tr></thead>"
            "<tbody>\n";
    for (const Json& entry : data.evaluations) {
        const Json& original = entry["original"]["perplexity"];
        const Json& divergence = entry["divergence"];
        const double after = entry["perplexity"].number();
        const std::string change = original.is_number() && original.number() > 0.0
                                       ? fmt::format("{:+.2f} %", 100.0 * (after / original.number() - 1.0))
                                       : "–";
        html += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"n\">{} × {}</td><td class=\"n\">{}</td>"
                            "<td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>"
                            "<td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                            escaped(entry["text_file"].string()), escaped(entry["protocol"].string()),
                            entry["windows"].integer(), entry["length"].integer(),
                            original.is_number() ? fmt::format("{:.4f}", original.number()) : "–",
                            fmt::format("{:.4f}", after), number(entry["standard_error"].number()), change,
                            divergence["mean_kl"].is_number() ? number(divergence["mean_kl"].number()) : "–",
                            divergence["same_top"].is_number()
                                ? fmt::format("{:.1f} %", 100.0 * divergence["same_top"].number())
                                : "–");
    }
    return html + "</tbody></table></div>\n";
}

/// Series by role: one color for the layers of each kind.
std::vector<ChartSeries> by_role(const ReportData& data, double (*x)(const ReportRow&))
{
    std::vector<ChartSeries> series;
    for (const ReportRow& row : data.rows) {
        const std::string role(short_name(row.layer->role));
        auto found = std::find_if(series.begin(), series.end(),
                                  [&](const ChartSeries& one) { return one.name == role; });
        if (found == series.end())
            found = series.insert(series.end(), ChartSeries{role, {}, {}, {}});
        found->x.push_back(x(row));
        found->y.push_back(row.result.quality.relative_activation_error);
        found->labels.push_back(row.result.layer);
    }
    return series;
}

std::string figure(const std::string& title, const std::string& svg)
{
    return fmt::format("<figure><figcaption>{}</figcaption>\n{}</figure>\n", escaped(title), svg);
}

std::string bits_by_role(const ReportData& data)
{
    struct Sum {
        double weights = 0.0, codes = 0.0, factors = 0.0;
    };
    std::vector<std::string> roles;
    std::map<std::string, Sum> sums;
    for (const ReportRow& row : data.rows) {
        const std::string role(short_name(row.layer->role));
        if (!sums.contains(role))
            roles.push_back(role);
        Sum& sum = sums[role];
        const auto weights = static_cast<double>(row.layer->out) * static_cast<double>(row.layer->in);
        sum.weights += weights;
        sum.codes += weights * (row.result.bits_per_weight - row.factor_bits);
        sum.factors += weights * row.factor_bits;
    }
    std::vector<ChartBar> bars;
    for (const std::string& role : roles)
        bars.push_back(
            {role, {sums[role].codes / sums[role].weights, sums[role].factors / sums[role].weights}});
    return bar_chart({"Bits per weight by kind of layer", "bits per weight", ""}, {"Q with scales", "L·R"},
                     bars);
}

/// How the iterative methods came to their result: the mean over layers of each half-step.
std::string convergence(const ReportData& data)
{
    std::map<int, std::pair<double, int>> steps;
    for (const ReportRow& row : data.rows) {
        for (const IterationReport& step : row.result.trace) {
            steps[step.step].first += step.relative_activation_error;
            ++steps[step.step].second;
        }
    }
    if (steps.size() < 2)
        return {};
    ChartSeries mean{"mean of the layers", {}, {}, {}};
    for (const auto& [step, sum] : steps) {
        mean.x.push_back(step);
        mean.y.push_back(sum.first / sum.second);
    }
    return figure("Convergence, mean of the layers",
                  line_chart({"Convergence", "half-step", "relative activation error"}, {mean}));
}

std::string plots(const ReportData& data)
{
    std::string html = "<h2>Where the error is</h2>\n<div class=\"plots\">\n";
    html += figure("Relative activation error by block",
                   line_chart({"Relative activation error by block", "block", "‖(W − Q − LR)·H½‖ / ‖W·H½‖"},
                              by_role(data, [](const ReportRow& row) {
                                  return static_cast<double>(row.layer->block);
                              })));
    html += figure("Bits per weight by kind of layer", bits_by_role(data));
    html +=
        figure("Error against size, a point for each layer",
               scatter_chart({"Error against size", "bits per weight", "relative activation error"},
                             by_role(data, [](const ReportRow& row) { return row.result.bits_per_weight; })));
    return html + convergence(data) + "</div>\n";
}

/// Layers that were given the same share one line: the setting is what --set takes.
std::string plan_table(const ReportData& data)
{
    std::vector<std::string> order;
    std::map<std::string, std::vector<std::string>> rows;
    for (const LayerPlan& row : data.plan->rows) {
        const std::string setting = setting_text(row);
        const std::string what = setting.substr(setting.find(':') + 1);
        if (!rows.contains(what))
            order.push_back(what);
        rows[what].push_back(row.layer);
    }
    std::string html =
        "<h2>Plan</h2>\n<div class=\"wide\"><table><thead><tr><th class=\"n\">Layers</th><th>Setting</th>"
        "<th>First of them</th></tr></thead><tbody>\n";
    for (const std::string& what : order)
        html += fmt::format("<tr><td class=\"n\">{}</td><td "
                            "class=\"setting\"><code>{}</code></td><td><code>{}</code></td></tr>\n",
                            rows[what].size(), escaped(what), escaped(rows[what].front()));
    return html + "</tbody></table></div>\n";
}

std::string layer_table(const ReportData& data)
{
    double worst = 0.0;
    for (const ReportRow& row : data.rows)
        worst = std::max(worst, row.result.quality.relative_activation_error);
    std::string html =
        "<h2>Layers</h2>\n<div class=\"wide\"><table><thead><tr><th>Layer</th><th>Method</th>"
        "<th class=\"n\">Shape</th><th class=\"n\">Bits/weight</th><th class=\"n\">of it L·R</th>"
        "<th class=\"n\">Before</th><th class=\"n\">After</th><th class=\"n\">Error</th>"
        "<th class=\"n\">Activation error</th><th class=\"n\">Seconds</th></tr></thead><tbody>\n";
    for (const ReportRow& row : data.rows) {
        const double error = row.result.quality.relative_activation_error;
        html += fmt::format(
            "<tr><td><code>{}</code></td><td>{}</td><td class=\"n\">{} × {}</td><td class=\"n\">{:.3f}</td>"
            "<td class=\"n\">{:.3f}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>"
            "<td class=\"n\">{:.4f}</td><td class=\"n error\" style=\"--v:{:.1f}%\">{:.4f}</td>"
            "<td class=\"n\">{:.2f}</td></tr>\n",
            escaped(row.result.layer), escaped(row.result.method), row.layer->out, row.layer->in,
            row.result.bits_per_weight, row.factor_bits, format_byte_size(row.original_bytes),
            format_byte_size(row.compressed_bytes), row.result.quality.relative_error,
            worst > 0.0 ? 100.0 * error / worst : 0.0, error, row.result.seconds);
    }
    return html + "</tbody></table></div>\n";
}

/// What makes this run again; capitals stand for the reader's own places.
std::string commands(const ReportData& data)
{
    const std::string seed = data.plan->seed ? fmt::format(" --seed {}", data.plan->seed) : "";
    std::string text;
    if (!data.plan->calibration_id.empty())
        text += "rankscope-cli calibrate CHECKPOINT --text TEXT --out CALIBRATION\n";
    text += "rankscope-cli compress CHECKPOINT --plan RUN/plan.json";
    text += data.plan->calibration_id.empty() ? "" : " --calibration CALIBRATION";
    text += seed + " --out RUN\n";
    for (const Json& entry : data.evaluations)
        text +=
            fmt::format("rankscope-cli evaluate RUN --text {} --protocol {} --length {}\n",
                        entry["text_file"].string(), entry["protocol"].string(), entry["length"].integer());
    text += "rankscope-cli export RUN --format report --out REPORT --check\n";
    return "<h2>Commands</h2>\n<p class=\"soft\">What makes this again; capitals stand for places of your "
           "own.</p>\n<pre>"
           + escaped(text) + "</pre>\n";
}

std::string footer(const ReportData& data)
{
    std::string text = fmt::format("Rankscope {} · checkpoint {} · seed {}", RANKSCOPE_VERSION,
                                   data.plan->checkpoint_hash.substr(0, 16), data.plan->seed);
    if (!data.plan->calibration_id.empty())
        text += " · calibration " + data.plan->calibration_id.substr(0, 16);
    return "<footer>" + escaped(text) + " · every figure of the table is in report.csv</footer>\n";
}

} // namespace

std::string report_page(const ReportData& data)
{
    std::string html = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    html += "<title>" + escaped(data.model) + " compressed</title>\n<style>" + k_style
            + "</style>\n</head>\n<body>\n<main>\n";
    html += header(data) + evaluation_table(data) + plots(data) + plan_table(data) + layer_table(data)
            + commands(data) + footer(data);
    return html + "</main>\n</body>\n</html>\n";
}

} // namespace rankscope::export_common
