// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/hidden_states.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

bool mentions(const Error& error, std::initializer_list<const char*> words)
{
    const std::string sentence = error.sentence();
    return std::all_of(words.begin(), words.end(),
                       [&](const char* word) { return sentence.find(word) != std::string::npos; });
}

/// Cancels when a block begins: the one before is then finished.
class StopAtBlock : public Monitor {
public:
    explicit StopAtBlock(int block) : name_("block " + std::to_string(block + 1) + " of") {}
    void report(std::uint64_t, std::uint64_t, std::string_view what) override
    {
        cancelled_ = cancelled_ || what.substr(0, name_.size()) == name_;
    }
    bool cancelled() const override { return cancelled_; }

private:
    std::string name_;
    bool cancelled_ = false;
};

} // namespace

class TestCalibrationResume : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void goes_on_with_the_same_bytes_data();
    void goes_on_with_the_same_bytes();
    void stops_again_and_again();
    void nothing_finished_leaves_nothing();
    void without_resume_nothing_is_lost();
    void force_starts_again();
    void other_settings_are_refused_data();
    void other_settings_are_refused();
    void lost_hidden_states_are_refused();
    void damaged_record_starts_again();
    void finished_passes_only_need_their_name();
    void two_passes_do_not_mix();
    void foreign_folders_are_safe();
    void durable_states_survive();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    CalibrationOptions options() const
    {
        CalibrationOptions options;
        options.samples = 6;
        options.length = 64;
        return options;
    }
    Status calibrate_sample(const char* out, const CalibrationOptions& options,
                            Monitor& monitor = silent_monitor())
    {
        return calibrate(model_, test::sample_folder() / "calibration.txt", file(out), options, *backend_,
                         monitor);
    }
    /// A pass that was stopped when this block began.
    void interrupt(const char* out, int block, const CalibrationOptions& options)
    {
        StopAtBlock stop(block);
        const Status made = calibrate_sample(out, options, stop);
        QVERIFY(!made);
        QCOMPARE(made.error().kind, ErrorKind::Cancelled);
        QVERIFY(!fs::exists(file(out)));
    }
    const std::map<std::string, std::string>& whole()
    {
        if (whole_.empty()) {
            if (!calibrate_sample("whole", options()))
                qFatal("the sample cannot be calibrated");
            whole_ = test::folder_contents(file("whole"));
        }
        return whole_;
    }

    std::unique_ptr<QTemporaryDir> folder_;
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    std::map<std::string, std::string> whole_;
};

void TestCalibrationResume::goes_on_with_the_same_bytes_data()
{
    QTest::addColumn<int>("block");
    QTest::addColumn<bool>("small_budget");
    QTest::newRow("after the first block") << 1 << false;
    QTest::newRow("before the last block") << 4 << false;
    QTest::newRow("hidden states in mapped files") << 2 << true;
}

void TestCalibrationResume::goes_on_with_the_same_bytes()
{
    QFETCH(int, block);
    QFETCH(bool, small_budget);
    CalibrationOptions options = this->options();
    const auto budgets = [&](const auto& attempt) {
        // The least budget with which it works keeps the hidden states out of memory.
        const std::uint64_t resident = resident_bytes();
        for (std::uint64_t budget = resident; budget < resident + (64U << 20); budget += 32 << 10) {
            options.memory_budget_bytes = budget;
            if (attempt())
                return;
        }
    };
    if (small_budget)
        budgets([&] {
            StopAtBlock stop(block);
            return calibrate_sample("cal", options, stop).error().kind == ErrorKind::Cancelled;
        });
    else
        interrupt("cal", block, options);
    QVERIFY(fs::exists(file("cal.unfinished") / "pass.json"));
    QVERIFY(fs::exists(file("cal.unfinished") / "block-0000.safetensors"));
    options.resume = true;
    options.memory_budget_bytes = 0;
    test::TestMonitor monitor;
    const Status resumed = calibrate_sample("cal", options, monitor);
    QVERIFY2(resumed, resumed ? "" : resumed.error().sentence().c_str());
    QVERIFY(monitor.within_total());
    const auto& stages = monitor.stages();
    QVERIFY(std::find(stages.begin(), stages.end(), "embedding") == stages.end());
    QVERIFY(std::find(stages.begin(), stages.end(), "block 1 of 5") == stages.end());
    QVERIFY(!fs::exists(file("cal.unfinished")));
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::stops_again_and_again()
{
    CalibrationOptions options = this->options();
    options.resume = true; // with nothing there, it begins
    for (int block = 1; block < 5; ++block)
        interrupt("cal", block, options);
    QVERIFY(calibrate_sample("cal", options));
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::nothing_finished_leaves_nothing()
{
    for (const int reports : {0, 1}) {
        test::TestMonitor stop(reports);
        QCOMPARE(calibrate_sample("cal", options(), stop).error().kind, ErrorKind::Cancelled);
        QVERIFY(fs::is_empty(folder_->path().toStdString()));
    }
    interrupt("cal", 0, options());
    QVERIFY(fs::is_empty(folder_->path().toStdString()));
}

void TestCalibrationResume::without_resume_nothing_is_lost()
{
    interrupt("cal", 3, options());
    const auto before = test::folder_contents(file("cal.unfinished"));
    const Status refused = calibrate_sample("cal", options());
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);
    QVERIFY2(mentions(refused.error(), {"3 blocks", "--resume", "--force"}),
             refused.error().sentence().c_str());
    QVERIFY(test::folder_contents(file("cal.unfinished")) == before);
}

void TestCalibrationResume::force_starts_again()
{
    interrupt("cal", 3, options());
    CalibrationOptions options = this->options();
    options.replace = true;
    test::TestMonitor monitor;
    QVERIFY(calibrate_sample("cal", options, monitor));
    QVERIFY(std::find(monitor.stages().begin(), monitor.stages().end(), "embedding")
            != monitor.stages().end());
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::other_settings_are_refused_data()
{
    QTest::addColumn<QString>("setting");
    for (const char* setting : {"samples", "length", "activation_bits", "thresholds", "seed"})
        QTest::newRow(setting) << setting;
}

void TestCalibrationResume::other_settings_are_refused()
{
    QFETCH(QString, setting);
    interrupt("cal", 2, options());
    CalibrationOptions options = this->options();
    options.resume = true;
    if (setting == "samples")
        options.samples = 5;
    else if (setting == "length")
        options.length = 32;
    else if (setting == "activation_bits")
        options.activations.bits = 4;
    else if (setting == "thresholds")
        options.thresholds = {20.0};
    else
        options.seed = 7;
    const Status refused = calibrate_sample("cal", options);
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);
    QVERIFY2(mentions(refused.error(), {qPrintable(setting), "there", "now"}),
             refused.error().sentence().c_str());
    options = this->options();
    options.resume = true;
    QVERIFY(calibrate_sample("cal", options)); // and the right ones still go on
}

void TestCalibrationResume::lost_hidden_states_are_refused()
{
    interrupt("cal", 2, options());
    const auto record = Json::read(file("cal.unfinished") / "pass.json");
    QVERIFY(record);
    const fs::path states = HiddenStates::generation_file(
        file("cal.unfinished"), static_cast<int>((*record)["generation"].integer(-1)));
    fs::resize_file(states, fs::file_size(states) - 4);
    CalibrationOptions options = this->options();
    options.resume = true;
    const Status refused = calibrate_sample("cal", options);
    QVERIFY(!refused);
    QVERIFY2(mentions(refused.error(), {"hidden", "not whole"}), refused.error().sentence().c_str());
}

void TestCalibrationResume::damaged_record_starts_again()
{
    interrupt("cal", 2, options());
    QVERIFY(write_text_file(file("cal.unfinished") / "pass.json", "{", true));
    CalibrationOptions options = this->options();
    options.resume = true;
    QVERIFY(calibrate_sample("cal", options));
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::finished_passes_only_need_their_name()
{
    // As if killed between the last block and the last rename.
    interrupt("cal", 4, options());
    QVERIFY(calibrate_sample("other", options()));
    fs::copy_file(file("other") / "block-0004.safetensors",
                  file("cal.unfinished") / "block-0004.safetensors");
    auto record = Json::read(file("cal.unfinished") / "pass.json");
    QVERIFY(record);
    const auto index = Json::read(file("other") / "calibration.json");
    QVERIFY(index);
    record->set("finished_blocks", 5);
    record->set("tensors", (*index)["tensors"]);
    QVERIFY(write_text_file(file("cal.unfinished") / "pass.json", record->dump(), true));
    fs::remove(HiddenStates::generation_file(file("cal.unfinished"), 0));
    fs::remove(HiddenStates::generation_file(file("cal.unfinished"), 1));
    CalibrationOptions options = this->options();
    options.resume = true;
    QVERIFY(calibrate_sample("cal", options));
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::two_passes_do_not_mix()
{
    /// While one pass runs, another one tries the same place.
    class Intruder : public Monitor {
    public:
        explicit Intruder(std::function<void()> action) : action_(std::move(action)) {}
        void report(std::uint64_t, std::uint64_t, std::string_view what) override
        {
            if (what == "block 2 of 5" && action_)
                std::exchange(action_, nullptr)();
        }

    private:
        std::function<void()> action_;
    };
    bool refused = false;
    Intruder monitor([&] {
        CalibrationOptions options = this->options();
        options.resume = true;
        options.replace = true;
        const Status second = calibrate_sample("cal", options);
        refused = !second && mentions(second.error(), {"another calibration"});
    });
    QVERIFY(calibrate_sample("cal", options(), monitor));
    QVERIFY(refused);
    QVERIFY(test::folder_contents(file("cal")) == whole());
}

void TestCalibrationResume::foreign_folders_are_safe()
{
    fs::create_directories(file("cal.unfinished"));
    QVERIFY(write_text_file(file("cal.unfinished") / "thesis.txt", "years of work", false));
    CalibrationOptions options = this->options();
    options.resume = true;
    options.replace = true;
    const Status refused = calibrate_sample("cal", options);
    QVERIFY(!refused);
    QVERIFY2(mentions(refused.error(), {"thesis.txt"}), refused.error().sentence().c_str());
    QVERIFY(fs::exists(file("cal.unfinished") / "thesis.txt"));
}

void TestCalibrationResume::durable_states_survive()
{
    const fs::path folder = file("states");
    fs::create_directories(folder);
    for (const bool mapped : {false, true}) {
        {
            auto states = HiddenStates::durable(50, 7, {folder, mapped, -1});
            QVERIFY(states);
            states->next_rows(0, 50).setConstant(1.0F);
            QVERIFY(states->finish_block());
            QCOMPARE(states->generation(), 0);
            states->next_rows(0, 50).setConstant(2.0F);
            QVERIFY(states->finish_block());
            QCOMPARE(states->generation(), 1);
            states->next_rows(0, 25).setConstant(3.0F); // a block that was not finished
        }
        auto states = HiddenStates::durable(50, 7, {folder, !mapped, 1});
        QVERIFY(states);
        QCOMPARE(states->rows(0, 50), Matrix(Matrix::Constant(50, 7, 2.0F)));
        QVERIFY(!HiddenStates::durable(51, 7, {folder, mapped, 1}));
        fs::remove_all(folder);
        fs::create_directories(folder);
        QVERIFY(!HiddenStates::durable(50, 7, {folder, mapped, 0}));
        fs::remove_all(folder);
        fs::create_directories(folder);
    }
}

QTEST_GUILESS_MAIN(TestCalibrationResume)
#include "test_calibration_resume.moc"
