// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/run/run.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <map>

namespace rankscope::test {

/// What tests of runs share: the sample, a small calibration of it, and the layer files of an uninterrupted
/// ODLRI run.
class RunFixture {
protected:
    /// Makes them all; to be called once, before the tests.
    void make_whole_run()
    {
        model_ = sample_model();
        calibration_ = small_calibration(place("calibration"));
        VERIFY_OK(execute(sample_plan("odlri"), place("whole")));
        whole_ = layers_of(place("whole"));
        QCOMPARE(whole_.size(), model_->linears().size());
    }
    std::filesystem::path place(const QString& name) const
    {
        return std::filesystem::path(folder_.path().toStdString()) / name.toStdString();
    }
    Status execute(const Plan& plan, const std::filesystem::path& folder, const RunOptions& options = {},
                   Monitor& monitor = silent_monitor(), const RunEvents& events = {}) const
    {
        return Run::execute(model_, plan, calibration_, folder, options, *backend_, monitor, events);
    }
    std::map<std::string, std::string> layers_of(const std::filesystem::path& run) const
    {
        return folder_contents(run / "layers");
    }

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const CalibrationStore> calibration_;
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    std::map<std::string, std::string> whole_;
};

} // namespace rankscope::test
