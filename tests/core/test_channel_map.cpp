// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/channel_map_pair.h"
#include "core/compute/backend.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;

class TestChannelMap : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void rows_are_the_inputs_of_the_model()
    {
        const QTemporaryDir folder;
        const auto model = test::sample_model();
        const auto backend = make_cpu_backend();
        CalibrationOptions options;
        options.samples = 4;
        options.length = 32;
        const auto out = std::filesystem::path(folder.path().toStdString()) / "cal";
        QVERIFY(calibrate(model, test::sample_folder() / "calibration.txt", out, options, *backend,
                          silent_monitor())
                    .has_value());
        const auto store = CalibrationStore::open(out);
        QVERIFY(store.has_value());
        const auto map = channel_map(**store, *model, silent_monitor());
        QVERIFY(map.has_value());
        QCOMPARE(map->rows.size(), (*store)->groups().size());
        int block = 0;
        for (const ChannelMap::Row& row : map->rows) {
            QVERIFY(row.block >= block); // from the first block to the last
            block = row.block;
            const LinearLayer* layer = model->find_linear(row.group);
            QVERIFY(layer != nullptr && layer->role == row.role);
            QCOMPARE(row.max_abs.size(), layer->in);
            QVERIFY((row.max_abs.array() >= row.rms.array()).all());
            const auto below = (row.rms.array() < row.median_rms).count();
            const auto above = (row.rms.array() > row.median_rms).count();
            QVERIFY(below <= layer->in / 2 && above <= layer->in / 2);
        }
        QCOMPARE(block, 4);
    }

    void channels_that_stay_large_are_found()
    {
        std::vector<VectorD> rows(10, VectorD::Ones(20));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            rows[i][7] = 9.0;
            if (i < 6)
                rows[i][3] = 9.0;
            if (i < 2)
                rows[i][1] = 9.0;
        }
        std::vector<const VectorD*> pointers;
        for (const VectorD& row : rows)
            pointers.push_back(&row);
        QCOMPARE(persistent_channels(pointers, 8.0, 0.5), (std::vector<Index>{7, 3}));
        QCOMPARE(persistent_channels(pointers, 8.0, 0.1), (std::vector<Index>{7, 3, 1}));
        QVERIFY(persistent_channels(pointers, 9.0, 0.1).empty());
        QVERIFY(persistent_channels({}, 8.0, 0.5).empty());
    }

    void weights_are_paired_by_partner()
    {
        const auto model = test::sample_model();
        const WeightReader plain = [&](const LinearLayer& layer) { return model->weight(layer); };
        const WeightReader doubled = [&](const LinearLayer& layer) -> Result<Matrix> {
            auto weight = model->weight(layer);
            if (weight && layer.role == LinearRole::Down)
                *weight *= 2.0F;
            return weight;
        };
        const auto first = weight_channel_map(*model, plain, silent_monitor());
        const auto second = weight_channel_map(*model, doubled, silent_monitor());
        QVERIFY(first && second);
        // The rows of the attention's input hold q, k and v together.
        const ChannelMap::Row& row = first->rows.front();
        Matrix all(0, row.rms.size());
        for (const LinearLayer& layer : model->linears()) {
            if (layer.input_group != row.group)
                continue;
            const Matrix weight = *model->weight(layer);
            Matrix joined(all.rows() + weight.rows(), weight.cols());
            joined << all, weight;
            all = joined;
        }
        const MatrixD exact = all.cast<double>();
        QVERIFY((row.max_abs.transpose() - exact.cwiseAbs().colwise().maxCoeff()).cwiseAbs().maxCoeff()
                == 0.0);
        const VectorD rms =
            (exact.cwiseAbs2().colwise().sum() / double(exact.rows())).cwiseSqrt().transpose();
        QVERIFY((row.rms - rms).cwiseAbs().maxCoeff() < 1e-12);

        TensorMatching matching = match_tensors(*model, *model);
        ChannelMapPair pair = pair_rows(*first, *model, *second, *model, matching);
        QVERIFY(pair.only_first.empty() && pair.only_second.empty());
        QCOMPARE(pair.log_ratio.rows.size(), first->rows.size());
        QCOMPARE(pair.largest_max_abs, 1.0);
        for (const ChannelMap::Row& ratio : pair.log_ratio.rows)
            QCOMPARE(ratio.max_abs[0], ratio.role == LinearRole::Down ? 1.0 : 0.0);
        // Without its partner a row is listed, on both sides.
        const std::string alone = model->find_linear(row.group)->weight();
        std::erase_if(matching.pairs, [&](const auto& names) { return names.first == alone; });
        pair = pair_rows(*first, *model, *second, *model, matching);
        QCOMPARE(pair.only_first, std::vector<std::string>{row.group});
        QCOMPARE(pair.only_second, std::vector<std::string>{row.group});
        QCOMPARE(pair.first.rows.size() + 1, first->rows.size());
    }
};

QTEST_GUILESS_MAIN(TestChannelMap)
#include "test_channel_map.moc"
