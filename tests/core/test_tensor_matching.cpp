// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/tensor_matching.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <set>

using namespace rankscope;

class TestTensorMatching : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void a_model_matches_itself()
    {
        const auto model = test::sample_model();
        const TensorMatching matching = match_tensors(*model, *model);
        QCOMPARE(matching.pairs.size(), model->checkpoint().tensors().size());
        QVERIFY(matching.only_first.empty() && matching.only_second.empty());
        for (const auto& [first, second] : matching.pairs)
            QCOMPARE(first, second);
        for (const LinearLayer& layer : model->linears())
            QCOMPARE(partner_layer(matching, *model, layer), &layer);
        QVERIFY(matching.partner("no such tensor").empty());
    }

    void every_tensor_is_named_once_data()
    {
        QTest::addColumn<QString>("other");
        for (const char* other : {"gpt2", "llama-gqa-tied", "llama-gqa-untied-sharded", "mixtral-moe", "opt"})
            QTest::newRow(other) << QString::fromLatin1(other);
    }

    /// Other families have other names and other tensors: none is dropped, none is used twice.
    void every_tensor_is_named_once()
    {
        QFETCH(QString, other);
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        const auto first = test::sample_model();
        const auto second = Model::open(*shared / "models" / "tiny-arch" / other.toStdString());
        if (!second)
            QSKIP("this reference model is not here");
        const TensorMatching matching = match_tensors(*first, **second);
        std::multiset<std::string> of_first(matching.only_first.begin(), matching.only_first.end());
        std::multiset<std::string> of_second(matching.only_second.begin(), matching.only_second.end());
        for (const auto& [a, b] : matching.pairs) {
            of_first.insert(a);
            of_second.insert(b);
        }
        QCOMPARE(of_first.size(), first->checkpoint().tensors().size());
        QCOMPARE(of_second.size(), (*second)->checkpoint().tensors().size());
        for (const TensorInfo& info : first->checkpoint().tensors())
            QCOMPARE(of_first.count(info.name), std::size_t{1});
        for (const TensorInfo& info : (*second)->checkpoint().tensors())
            QCOMPARE(of_second.count(info.name), std::size_t{1});
        // Linears meet by place: the same block and role, whatever they are called.
        int met = 0;
        for (const LinearLayer& layer : first->linears()) {
            const LinearLayer* partner = partner_layer(matching, **second, layer);
            if (!partner)
                continue;
            ++met;
            QCOMPARE(partner->block, layer.block);
            QVERIFY(partner->role == layer.role);
        }
        if (other.startsWith(QLatin1String("llama")) || other == QLatin1String("opt"))
            QVERIFY(met > 0);
    }
};

QTEST_GUILESS_MAIN(TestTensorMatching)
#include "test_tensor_matching.moc"
