// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/flow_layout.h"

#include <algorithm>

namespace rankscope {

FlowLayout::~FlowLayout() { qDeleteAll(items_); }

void FlowLayout::addItem(QLayoutItem* item) { items_.append(item); }

QLayoutItem* FlowLayout::takeAt(int index)
{
    return index >= 0 && index < items_.size() ? items_.takeAt(index) : nullptr;
}

QSize FlowLayout::sizeHint() const
{
    int width = 0;
    int height = 0;
    for (const QLayoutItem* item : items_) {
        if (item->isEmpty())
            continue;
        width += item->sizeHint().width() + spacing();
        height = std::max(height, item->sizeHint().height());
    }
    const QMargins around = contentsMargins();
    return height == 0 ? QSize(0, 0)
                       : QSize(width, height)
                             .grownBy(QMargins(around.left(), around.top(), around.right(), around.bottom()));
}

QSize FlowLayout::minimumSize() const
{
    QSize least(0, 0);
    for (const QLayoutItem* item : items_)
        if (!item->isEmpty())
            least = least.expandedTo(item->minimumSize());
    return least.isEmpty() ? QSize(0, 0) : least.grownBy(contentsMargins());
}

void FlowLayout::setGeometry(const QRect& rect)
{
    QLayout::setGeometry(rect);
    arrange(rect, true);
}

int FlowLayout::arrange(const QRect& rect, bool move) const
{
    const QMargins around = contentsMargins();
    const QRect inner = rect.marginsRemoved(around);
    QVector<QLayoutItem*> line;
    int x = inner.x();
    int y = inner.y();
    int height = 0;
    const auto finish_line = [&] {
        int at = inner.x();
        for (QLayoutItem* item : std::as_const(line)) {
            const QSize size = item->sizeHint();
            if (move)
                item->setGeometry(QRect(QPoint(at, y + (height - size.height()) / 2), size));
            at += size.width() + spacing();
        }
        line.clear();
    };
    for (QLayoutItem* item : items_) {
        if (item->isEmpty())
            continue;
        const QSize size = item->sizeHint();
        if (!line.isEmpty() && x + size.width() > inner.right() + 1) {
            finish_line();
            x = inner.x();
            y += height + spacing() / 2;
            height = 0;
        }
        line.append(item);
        x += size.width() + spacing();
        height = std::max(height, size.height());
    }
    finish_line();
    return height == 0 ? 0 : y + height - rect.y() + around.bottom();
}

} // namespace rankscope
