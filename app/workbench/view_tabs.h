// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/latest_wins.h"
#include "app/workbench/session.h"
#include "app/workbench/views/view.h"

#include <QCache>
#include <QTabWidget>
#include <QVector>

#include <memory>

namespace rankscope {

/// The views of the middle, a tab for each that is registered. Feeds those that Pictures does not: what a
/// view in sight shows follows the selection, the plan's grid and the run; it is computed away from this
/// thread, the last request winning. What was computed is kept while there is room for it, an eighth of the
/// memory and 1 GiB at most, so that going back and forth between layers only draws.
class ViewTabs : public QTabWidget {
    Q_OBJECT

public:
    ViewTabs(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QWidget* parent = nullptr);

    PlotView* plot(const QString& id) const; ///< null: there is no such view
    PlotView* currentPlot() const;
    /// False: there is no such view.
    bool showView(const QString& id);
    /// The command line that draws this view of the selection into a file.
    QString command(const QString& id) const;
    /// Bytes of the pictures that are kept, and how many may be.
    qsizetype keptBytes() const { return known_.totalCost(); }
    qsizetype mostKeptBytes() const { return known_.maxCost(); }

Q_SIGNALS:
    void failed(const rankscope::Error& error);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    struct Page {
        const View* view = nullptr;
        PlotView* plot = nullptr;
        bool fed = false;    ///< by this class
        QString shown;       ///< key of what is drawn or under way
        QString other_shown; ///< the same of the other side of a comparison
        Picture picture;     ///< what is drawn, where it is fed by this class
    };

    void refresh();
    void feed(Page& page);
    void feedOther(Page& page);
    void forget();
    void keep(const QString& key, const Picture& picture, std::size_t bytes);
    void draw(Page& page, const ViewRequest& request, const Result<Picture>& answer);
    ViewRequest requestFor(const Page& page, const LinearLayer& layer) const;
    ViewSides sidesFor(const Page& page, const LinearLayer& layer, const LinearLayer& partner) const;
    QString keyOf(const Page& page) const;
    const LinearLayer* selectedLayer() const;

    Session& session_;
    std::shared_ptr<Device> device_;
    LatestWins latest_;
    QVector<Page> pages_;
    QCache<QString, Picture> known_; ///< by key; cost in bytes
};

} // namespace rankscope
