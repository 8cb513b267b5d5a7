// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/rank_allotment.h"
#include "tests/support/sample_model.h"

#include <QtTest>

#include <algorithm>
#include <cmath>

using namespace rankscope;

namespace {

using Spectra = std::vector<std::shared_ptr<const LayerSpectrum>>;

/// Residuals that fall at another speed in each layer.
Spectra made_up(const Plan& plan, const Model& model)
{
    Spectra spectra;
    double decay = 0.02;
    for (const LayerPlan& row : plan.rows) {
        const LinearLayer& layer = *model.find_linear(row.layer);
        const Index size = std::min(layer.out, layer.in);
        auto spectrum = std::make_shared<LayerSpectrum>();
        spectrum->weight = VectorD::Ones(size);
        spectrum->residual =
            (VectorD::LinSpaced(size, 0.0, static_cast<double>(size - 1)) * -decay).array().exp();
        spectrum->weight_norm = 10.0;
        spectra.push_back(std::move(spectrum));
        decay = decay < 0.3 ? decay * 1.5 : 0.02;
    }
    return spectra;
}

Index rank_of(const LayerPlan& row) { return row.parameters.integer("rank"); }

} // namespace

class TestRankAllotment : public QObject {
    Q_OBJECT

    std::shared_ptr<const Model> model_ = test::sample_model();
    Plan plan_ =
        *uniform_plan(*model_, "svd_residual", {{"bits", std::int64_t{4}}, {"rank", std::int64_t{8}}}, 0);
    Spectra spectra_ = made_up(plan_, *model_);
    static constexpr RankAllotment::Ranks k_ranks{2, 64};

private Q_SLOTS:
    void every_budget_is_kept_and_more_is_never_worse()
    {
        const auto allotment = RankAllotment::make(plan_, *model_, spectra_, k_ranks);
        QVERIFY(allotment.has_value());
        QCOMPARE(allotment->free_rows(), static_cast<Index>(plan_.rows.size()));
        double before = std::numeric_limits<double>::infinity();
        for (int part = 0; part <= 10; ++part) {
            const std::uint64_t budget = allotment->least_bytes()
                                         + (allotment->most_bytes() - allotment->least_bytes())
                                               * static_cast<std::uint64_t>(part) / 10;
            const auto exact = allotment->at(budget, true);
            const auto quick = allotment->at(budget, false);
            QVERIFY(exact.has_value() && quick.has_value());
            QVERIFY(exact->proven);
            for (const auto& choice : {*exact, *quick}) {
                QVERIFY(choice.bytes <= budget);
                QVERIFY(choice.plan.check(*model_).has_value());
                QVERIFY(choice.worst_error >= choice.mean_error);
            }
            QVERIFY(exact->mean_error <= quick->mean_error * (1.0 + 1e-12));
            QVERIFY(exact->mean_error <= before);
            before = exact->mean_error;
            // The bytes said are those of the plan.
            std::uint64_t bytes = 0;
            for (const LayerPlan& row : exact->plan.rows) {
                const LinearLayer& layer = *model_->find_linear(row.layer);
                bytes += static_cast<std::uint64_t>(std::ceil(
                    planned_bits_per_weight(row, layer) * static_cast<double>(layer.out * layer.in) / 8.0));
            }
            QCOMPARE(exact->bytes, bytes);
        }
        QVERIFY(!allotment->at(allotment->least_bytes() - 1, true).has_value());
    }

    void better_than_the_same_rank_everywhere()
    {
        const auto allotment = RankAllotment::make(plan_, *model_, spectra_, k_ranks);
        const PlanSize size = planned_size(plan_, *model_);
        const auto choice = allotment->at(size.planned_bytes, true);
        QVERIFY(choice.has_value());
        double uniform = 0.0;
        for (std::size_t i = 0; i < plan_.rows.size(); ++i)
            uniform += std::pow(spectra_[i]->predicted_error(rank_of(plan_.rows[i])), 2);
        uniform = std::sqrt(uniform / static_cast<double>(plan_.rows.size()));
        QVERIFY2(choice->mean_error < 0.9 * uniform,
                 qPrintable(QString("%1 %2").arg(choice->mean_error).arg(uniform)));
    }

    void locked_and_unmeasured_rows_stay()
    {
        Plan plan = plan_;
        Spectra spectra = spectra_;
        plan.rows[0].locked = true;
        plan.rows[1].include = false;
        spectra[2] = nullptr;
        const auto allotment = RankAllotment::make(plan, *model_, spectra, k_ranks);
        QVERIFY(allotment.has_value());
        QCOMPARE(allotment->rows(), static_cast<Index>(plan.rows.size()) - 1);
        QCOMPARE(allotment->free_rows(), static_cast<Index>(plan.rows.size()) - 3);
        const auto choice = allotment->at(allotment->most_bytes(), true);
        QVERIFY(choice.has_value());
        for (const std::size_t kept : {std::size_t{0}, std::size_t{1}, std::size_t{2}})
            QVERIFY(choice->plan.rows[kept] == plan.rows[kept]);
        QCOMPARE(rank_of(choice->plan.rows[3]), std::min<Index>(64, spectra[3]->residual.size()));
    }

    void refuses_what_cannot_change()
    {
        const auto refused = [&](const Plan& plan, const Spectra& spectra,
                                 const RankAllotment::Ranks& ranks) {
            const auto allotment = RankAllotment::make(plan, *model_, spectra, ranks);
            return !allotment.has_value() && allotment.error().kind == ErrorKind::Usage;
        };
        QVERIFY(refused(plan_, spectra_, {0, 64}));
        QVERIFY(refused(plan_, {}, k_ranks));
        QVERIFY(refused(plan_, Spectra(plan_.rows.size()), k_ranks));
        QVERIFY(refused(*uniform_plan(*model_, "rtn", {}, 0), spectra_, k_ranks));
        Plan stranger = plan_;
        stranger.rows[0].layer = "nowhere";
        QVERIFY(refused(stranger, spectra_, k_ranks));
    }
};

QTEST_GUILESS_MAIN(TestRankAllotment)
#include "test_rank_allotment.moc"
