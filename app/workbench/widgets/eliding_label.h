// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QLabel>
#include <QString>

namespace rankscope {

/// One line of text that gives way: what does not fit becomes "…", the whole is in the tooltip and for screen
/// readers.
class ElidingLabel : public QLabel {
    Q_OBJECT

public:
    explicit ElidingLabel(const QString& name, Qt::TextElideMode mode = Qt::ElideRight,
                          QWidget* parent = nullptr);

    void setFullText(const QString& text);
    const QString& fullText() const { return text_; }

protected:
    void resizeEvent(QResizeEvent* event) override;
    void changeEvent(QEvent* event) override;

private:
    void elide();

    QString text_;
    Qt::TextElideMode mode_;
};

} // namespace rankscope
