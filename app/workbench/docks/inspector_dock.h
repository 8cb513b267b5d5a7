// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/session.h"

#include <QDockWidget>
#include <QHash>
#include <QString>

class QFormLayout;
class QLabel;

namespace rankscope {

class ElidingLabel;

/// Numbers of the selection; each can be selected and copied.
class InspectorDock : public QDockWidget {
    Q_OBJECT

public:
    explicit InspectorDock(Session& session, QWidget* parent = nullptr);

    void setProfile(const QString& layer, std::shared_ptr<const ChannelProfile> profile);
    void setOutliers(const QVector<int>& channels);
    QString value(const QString& name) const; ///< as shown, for tests

private:
    void refresh();
    void addSection(const QString& title);
    void set(const QString& name, const QString& value, const QString& tool_tip = {});
    void showModel();
    void showLayer();
    void showChannel();

    Session& session_;
    QFormLayout* form_;
    ElidingLabel* layer_title_ = nullptr;
    QHash<QString, QLabel*> values_;
    QString profile_layer_;
    std::shared_ptr<const ChannelProfile> profile_;
    QVector<int> outliers_;
};

} // namespace rankscope
