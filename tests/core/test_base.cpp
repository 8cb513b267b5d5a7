// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/base/json.h"
#include "core/base/monitor.h"
#include "core/base/random.h"
#include "core/base/thread_pool.h"
#include "core/tensor/half.h"
#include "core/tensor/mapped_file.h"
#include "core/tensor/tensor_view.h"

#include <QTemporaryDir>
#include <QTest>

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>

using namespace rankscope;
namespace fs = std::filesystem;

class TestBase : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void json_round_trips()
    {
        const std::string text =
            R"({"a":[1,2.5,-3e10,true,null,"x\u00e4\n"],"b":{"c":{}},"big":18446744073709551615})";
        auto value = Json::parse(text);
        QVERIFY(value);
        QCOMPARE((*value)["a"].array_if()->size(), std::size_t{6});
        QCOMPARE((*value)["a"].array_if()->at(5).string(), std::string("xä\n"));
        QCOMPARE((*value)["nothing"]["at"]["all"].integer(7), std::int64_t{7});
        for (const int indent : {-1, 1, 4}) {
            auto again = Json::parse(value->dump(indent));
            QVERIFY(again);
            QVERIFY(*again == *value);
        }
        QCOMPARE(Json(0.1).dump(), std::string("0.1"));
        QCOMPARE(Json(1.0).dump(), std::string("1.0"));
        QCOMPARE(Json(std::numeric_limits<double>::quiet_NaN()).dump(), std::string("null"));
        QCOMPARE(Json(std::string("\xff")).dump(), std::string("\"\xEF\xBF\xBD\""));
    }

    void json_refuses_data()
    {
        QTest::addColumn<QByteArray>("text");
        QTest::addColumn<QByteArray>("says");
        QTest::newRow("empty") << QByteArray("") << QByteArray("byte");
        QTest::newRow("trailing comma") << QByteArray("[1,]") << QByteArray("byte 4");
        QTest::newRow("two documents") << QByteArray("{} {}") << QByteArray("byte");
        QTest::newRow("duplicate key") << QByteArray(R"({"a":1,"a":2})") << QByteArray("\"a\" appears twice");
        QTest::newRow("comment") << QByteArray("{/*x*/}") << QByteArray("byte");
        QTest::newRow("bad UTF-8") << QByteArray("\"\xc3\x28\"") << QByteArray("byte");
        QTest::newRow("too deep") << QByteArray(100, '[') << QByteArray("nested deeper");
        QTest::newRow("cut off") << QByteArray(R"({"a":)") << QByteArray("byte");
    }
    void json_refuses()
    {
        QFETCH(QByteArray, text);
        QFETCH(QByteArray, says);
        const auto value = Json::parse(text.toStdString());
        QVERIFY(!value);
        QCOMPARE(value.error().kind, ErrorKind::BadInput);
        QVERIFY2(QByteArray::fromStdString(value.error().message).contains(says),
                 value.error().message.c_str());
    }

    void byte_sizes()
    {
        const std::pair<const char*, std::uint64_t> good[] = {{"6GiB", 6ULL << 30}, {"60MB", 60'000'000},
                                                              {"512k", 512'000},    {"1048576", 1048576},
                                                              {"1.5 KiB", 1536},    {"0", 0}};
        for (const auto& [text, bytes] : good) {
            const auto parsed = parse_byte_size(text);
            QVERIFY2(parsed, text);
            QCOMPARE(*parsed, bytes);
        }
        for (const char* text : {"", "x", "-1", "5 apples", "1e400", "3XiB", "nan"})
            QVERIFY2(!parse_byte_size(text), text);
        QCOMPARE(format_byte_size(999), std::string("999 B"));
        QCOMPARE(format_byte_size(1'044'992), std::string("1.04 MB"));
        QCOMPARE(format_byte_size(999'999), std::string("1.00 MB"));
        QCOMPARE(format_duration(41.4), std::string("00:41"));
        QCOMPARE(format_duration(3727), std::string("1:02:07"));
        QVERIFY(available_memory_bytes() > 0 && peak_resident_bytes() > 0);
    }

    void random_streams_are_stable_and_uniform()
    {
        const RandomStream a(1, "layer");
        const RandomStream b(2, "layer");
        const RandomStream c(1, "layes");
        QVERIFY(a.bits(5) != b.bits(5) && a.bits(5) != c.bits(5));
        QCOMPARE(RandomStream(1, "layer").bits(5), a.bits(5));
        double sum = 0.0;
        double squares = 0.0;
        const int n = 20'000;
        for (int i = 0; i < n; ++i) {
            const double x = a.normal(static_cast<std::uint64_t>(i));
            sum += x;
            squares += x * x;
            QVERIFY(a.below(static_cast<std::uint64_t>(i), 7) < 7);
        }
        QVERIFY(std::abs(sum / n) < 0.03);
        QVERIFY(std::abs(squares / n - 1.0) < 0.05);
    }

    void parallel_for_covers_nests_and_cancels()
    {
        set_thread_count(2);
        std::atomic<int> total = 0;
        parallel_for(0, 17, [&](std::int64_t) {
            parallel_for(0, 5, [&](std::int64_t j) { total += static_cast<int>(j); });
        });
        QCOMPARE(total.load(), 17 * 10);
        bool thrown = false;
        try {
            parallel_for(0, 100, [&](std::int64_t i) {
                if (i == 50)
                    throw Cancelled{};
            });
        } catch (const Cancelled&) {
            thrown = true;
        }
        QVERIFY(thrown);
        QCOMPARE(thread_count(), 2);
    }

    void half_precision_matches_the_definition()
    {
        for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
            const float value = half_to_float(static_cast<std::uint16_t>(bits));
            const std::uint32_t exponent = bits >> 10 & 0x1FU;
            const std::uint32_t mantissa = bits & 0x3FFU;
            const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
            if (exponent == 31) {
                QVERIFY(mantissa != 0 ? std::isnan(value) : std::isinf(value));
                continue;
            }
            const double expected =
                sign
                * (exponent == 0 ? std::ldexp(mantissa, -24)
                                 : std::ldexp(1024.0 + mantissa, static_cast<int>(exponent) - 25));
            QCOMPARE(static_cast<double>(value), expected);
            QCOMPARE(float_to_half(value), static_cast<std::uint16_t>(bits));
        }
        // Ties go to even, between neighbours the nearer one wins, overflow becomes infinity.
        QCOMPARE(float_to_half(1.0F + 0x1.0p-11F), std::uint16_t{0x3C00});
        QCOMPARE(float_to_half(1.0F + 0x1.8p-10F), std::uint16_t{0x3C02});
        QCOMPARE(float_to_half(65520.0F), std::uint16_t{0x7C00});
        QCOMPARE(float_to_half(65519.0F), std::uint16_t{0x7BFF});
        QCOMPARE(float_to_half(1e-9F), std::uint16_t{0});
        QVERIFY(std::isnan(half_to_float(float_to_half(std::numeric_limits<float>::quiet_NaN()))));
        QCOMPARE(float_to_bfloat16(1.0F + 0x1.0p-8F), std::uint16_t{0x3F80});
        QCOMPARE(bfloat16_to_float(float_to_bfloat16(-3.0F)), -3.0F);
        QVERIFY(std::isnan(bfloat16_to_float(float_to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
        QCOMPARE(float8_e4m3_to_float(0x7E), 448.0F);
        QCOMPARE(float8_e4m3_to_float(0x01), 0x1.0p-9F);
        QCOMPARE(float8_e5m2_to_float(0x7B), 57344.0F);
    }

    void atomic_file_is_all_or_nothing()
    {
        const QTemporaryDir folder;
        const fs::path path = fs::path(folder.path().toStdString()) / "sub" / "file.txt";
        {
            auto file = AtomicFile::create(path, false);
            QVERIFY(file && file->write("half"));
            QVERIFY(!fs::exists(path));
        }
        QVERIFY(fs::is_empty(path.parent_path()));
        QVERIFY(write_text_file(path, "whole", false));
        const auto again = write_text_file(path, "other", false);
        QVERIFY(!again);
        QVERIFY(again.error().remedy.find("--force") != std::string::npos);
        QCOMPARE(*read_text_file(path), std::string("whole"));
        QVERIFY(write_text_file(path, "other", true));
        QCOMPARE(*read_text_file(path), std::string("other"));
        const auto impossible = write_text_file(path / "below" / "a-file", "x", false);
        QVERIFY(!impossible);
        QCOMPARE(exit_status(impossible.error().kind), 3);
    }

    void atomic_folder_replaces_whole()
    {
        const QTemporaryDir base;
        const fs::path path = fs::path(base.path().toStdString()) / "out";
        for (const char* content : {"one", "two"}) {
            auto folder = AtomicFolder::create(path, true);
            QVERIFY(folder);
            QVERIFY(write_text_file(folder->part() / "a.txt", content, false));
            QVERIFY(folder->commit());
            QCOMPARE(*read_text_file(path / "a.txt"), std::string(content));
        }
        QVERIFY(!AtomicFolder::create(path, false));
        {
            auto folder = AtomicFolder::create(path, true);
            QVERIFY(folder && write_text_file(folder->part() / "b.txt", "lost", false));
        }
        QVERIFY(fs::exists(path / "a.txt") && !fs::exists(path / "b.txt"));
        QCOMPARE(std::distance(fs::directory_iterator(base.path().toStdString()), fs::directory_iterator{}),
                 std::ptrdiff_t{1});
    }

    void full_disk_is_told_apart()
    {
        auto file = std::ofstream("/dev/full");
        if (!file)
            QSKIP("no /dev/full on this system");
        errno = ENOSPC;
        const Error error = errno_error("write the file", "x");
        QCOMPARE(exit_status(error.kind), 4);
        const auto space = require_free_disk(fs::temp_directory_path(), std::uint64_t{1} << 62);
        QVERIFY(!space);
        QCOMPARE(exit_status(space.error().kind), 4);
        QVERIFY(require_free_disk(fs::temp_directory_path() / "not" / "yet", 1));
    }

    void mapped_file_notices_shrinking()
    {
        const QTemporaryDir folder;
        const fs::path path = fs::path(folder.path().toStdString()) / "data";
        QVERIFY(write_text_file(path, std::string(10'000, 'x'), false));
        auto file = MappedFile::open(path);
        QVERIFY(file);
        QCOMPARE((*file)->bytes().size(), std::size_t{10'000});
        QVERIFY((*file)->check());
        fs::resize_file(path, 10);
        QVERIFY(!(*file)->check());
        QVERIFY(!MappedFile::open(folder.path().toStdString()));
        QVERIFY(!MappedFile::open(path.string() + ".none"));
    }

    void errors_read_as_sentences()
    {
        const Error error =
            bad_input("the header promises 10 bytes, the file has 3", "a.safetensors", "Download it again")
                .in("folder");
        QCOMPARE(
            error.sentence(),
            std::string(
                "folder: a.safetensors: the header promises 10 bytes, the file has 3. Download it again."));
        const std::pair<ErrorKind, int> statuses[] = {{ErrorKind::Internal, 1},   {ErrorKind::Usage, 2},
                                                      {ErrorKind::BadInput, 3},   {ErrorKind::Io, 3},
                                                      {ErrorKind::NoSpace, 4},    {ErrorKind::NoDevice, 5},
                                                      {ErrorKind::Cancelled, 130}};
        for (const auto& [kind, status] : statuses)
            QCOMPARE(exit_status(kind), status);
    }
};

QTEST_GUILESS_MAIN(TestBase)
#include "test_base.moc"
