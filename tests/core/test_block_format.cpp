// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/tensor/block_format.h"

#include <QByteArray>
#include <QTest>

#include <cstring>
#include <vector>

using namespace rankscope;

class TestBlockFormat : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void equals_the_reference_bit_for_bit_data()
    {
        QTest::addColumn<QByteArray>("bytes");
        QTest::addColumn<QByteArray>("values");
        // Random blocks with finite scales; values by the `gguf` Python package named in the file.
        const auto file = Json::read(std::string(RANKSCOPE_SOURCE_DIR) + "/tests/core/data/blocks.json");
        QVERIFY(file);
        const auto* cases = (*file)["cases"].array_if();
        QVERIFY(cases && cases->size() == 12);
        for (const Json& row : *cases)
            QTest::newRow(row["type"].string().c_str())
                << QByteArray::fromHex(QByteArray::fromStdString(row["bytes"].string()))
                << QByteArray::fromHex(QByteArray::fromStdString(row["values"].string()));
    }
    void equals_the_reference_bit_for_bit()
    {
        QFETCH(QByteArray, bytes);
        QFETCH(QByteArray, values);
        const BlockLayout* layout = block_layout(std::string_view(QTest::currentDataTag()));
        QVERIFY(layout);
        QCOMPARE(block_layout(static_cast<std::uint32_t>(layout->format)), layout);
        const std::size_t blocks = static_cast<std::size_t>(bytes.size()) / layout->bytes;
        QCOMPARE(blocks * layout->bytes, static_cast<std::size_t>(bytes.size()));
        std::vector<float> decoded(blocks * layout->elements);
        QCOMPARE(decoded.size() * sizeof(float), static_cast<std::size_t>(values.size()));
        decode_blocks(layout->format, reinterpret_cast<const std::byte*>(bytes.constData()), blocks,
                      decoded.data());
        std::vector<float> expected(decoded.size());
        std::memcpy(expected.data(), values.constData(), static_cast<std::size_t>(values.size()));
        for (std::size_t i = 0; i < decoded.size(); ++i)
            QVERIFY2(decoded[i] == expected[i], qPrintable(QString("element %1: %2 instead of %3")
                                                               .arg(i)
                                                               .arg(double{decoded[i]})
                                                               .arg(double{expected[i]})));
    }
    void unknown_numbers_are_refused()
    {
        QVERIFY(!block_layout(4U));
        QVERIFY(!block_layout(0xFFFFFFFFU));
        QVERIFY(!block_layout("Q9_Z"));
    }
};

QTEST_GUILESS_MAIN(TestBlockFormat)
#include "test_block_format.moc"
