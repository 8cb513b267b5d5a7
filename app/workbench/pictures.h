// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/latest_wins.h"
#include "app/workbench/session.h"
#include "core/calibration/channel_map.h"

#include <QTimer>

#include <memory>

namespace rankscope {

/// Computes what the Channels and Spectrum views draw: the selected layer's at once, the last click winning;
/// and, as a job, the spectra of all rows of the plan, which give the predicted errors.
class Pictures : public QObject {
    Q_OBJECT

public:
    Pictures(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QObject* parent = nullptr);

    /// Spectra of every row whose error is not known yet.
    void measure();
    bool measuring() const { return measuring_; }

Q_SIGNALS:
    void overviewReady(std::shared_ptr<const rankscope::ChannelMap> map); ///< null: not calibrated
    void channelsBusy();
    void channelsReady(const QString& layer, std::shared_ptr<const rankscope::ChannelProfile> profile);
    void spectrumBusy();
    void spectrumReady(const QString& layer, std::shared_ptr<const rankscope::LayerSpectrum> spectrum);
    void failed(const rankscope::Error& error);

private:
    void update();
    void requestOverview();
    void requestChannels(const QString& layer);
    void requestSpectrum(const QString& layer);
    void measureIfSmall();
    QStringList unmeasured() const;

    Session& session_;
    JobRunner& runner_;
    std::shared_ptr<Device> device_;
    LatestWins latest_;
    QTimer settle_; ///< waits until a burst of plan edits is over
    QHash<QString, std::shared_ptr<const ChannelProfile>> profiles_;
    QString drawn_layer_;
    QString shown_spectrum_; ///< key of the spectrum that is drawn or under way
    bool measuring_ = false;
    JobId measure_job_ = 0;
    bool give_up_ =
        false; ///< an automatic measurement failed or was stopped: not again until the checkpoint changes
};

} // namespace rankscope
