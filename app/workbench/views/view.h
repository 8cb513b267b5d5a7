// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/plot_view.h"
#include "app/workbench/view_side.h"

#include <QString>
#include <QVariantMap>

#include <cstddef>
#include <memory>
#include <span>

namespace rankscope {

struct ViewRequest {
    ViewSide side;
    LinearLayer layer;   ///< for views of the whole model: any
    UniformGrid grid;    ///< of the layer's row in the plan
    QVariantMap options; ///< PlotView::options(); of the second side, compareOptions(), too
    int rank = 0;        ///< of the same
    bool second = false; ///< of a comparison: only what View::compare() takes is needed
};

/// What a view's compute() hands to its draw(); immutable.
using Picture = std::shared_ptr<const void>;

/// More than a histogram, a profile or a spectrum takes: some vectors.
inline constexpr std::size_t k_small_picture = 256 * 1024;

struct ViewInfo {
    QString id; ///< as --render and --view name it
    QString title;
    QString icon;
    QString help;         ///< one sentence
    bool of_layer = true; ///< else of the whole model
};

/// Both sides of a comparison: what is asked of the open checkpoint and of the other one.
struct ViewSides {
    ViewRequest first;
    ViewRequest second;
    TensorMatching matching; ///< of their tensors
};

/// One picture of a layer or model: how its widget is made, what is computed for it away from the GUI thread,
/// and how that is drawn. Adding one: views/foo_view.cpp, its plot, and a line in views.cpp.
class View {
public:
    virtual ~View() = default;
    virtual const ViewInfo& info() const = 0;
    virtual PlotView* make() const = 0;
    /// Errors: as the steps it takes. Throws Cancelled, BackendFailure.
    virtual Result<Picture> compute(const ViewRequest& request, Backend& backend, Monitor& monitor) const = 0;
    /// A null picture empties the view.
    virtual void draw(PlotView& plot, const ViewRequest& request, const Picture& picture) const = 0;
    /// Memory that a picture of compute(), or of compare(), holds: what a cache counts.
    virtual std::size_t bytes(const Picture&) const { return k_small_picture; }
    virtual std::size_t comparedBytes(const Picture& picture) const { return bytes(picture); }
    /// The second side's picture; throws and errors as compute().
    virtual Result<Picture> computeSecond(const ViewSides& sides, Backend& backend, Monitor& monitor) const
    {
        return compute(sides.second, backend, monitor);
    }
    /// Whether compare() looks at the first picture.
    virtual bool comparesPictures() const { return false; }
    /// What drawOther() draws, of the pictures of both sides: as it comes, the second one. Throws Cancelled.
    virtual Picture compare(const ViewSides&, const Picture& first, const Picture& second, Monitor&) const
    {
        Q_UNUSED(first)
        return second;
    }
    /// The same layer of the other side beside what is drawn. Without a picture there is none, or it is under
    /// way; without a name nothing is compared.
    virtual void drawOther(PlotView& plot, const QString& name, const Picture& picture) const = 0;
};

/// What the view draws of the second side. `first`: the picture of the first one, null where it is not at
/// hand. Errors, exceptions: as View::compute.
Result<Picture> computeOther(const View& view, const ViewSides& sides, Picture first, Backend& backend,
                             Monitor& monitor);

/// All views of the middle, in the order of their tabs.
std::span<const View* const> views();
/// Null when there is none of that name.
const View* findView(const QString& id);
QStringList viewIds();

/// A view whose plot and picture have types.
template <class Plot, class Data>
class TypedView : public View {
public:
    explicit TypedView(ViewInfo info) : info_(std::move(info)) {}
    const ViewInfo& info() const override { return info_; }
    PlotView* make() const override { return new Plot; }
    Result<Picture> compute(const ViewRequest& request, Backend& backend, Monitor& monitor) const override
    {
        auto data = read(request, backend, monitor);
        if (!data)
            return data.error();
        return Picture(std::make_shared<const Data>(std::move(*data)));
    }
    void draw(PlotView& plot, const ViewRequest& request, const Picture& picture) const override
    {
        show(static_cast<Plot&>(plot), request, std::static_pointer_cast<const Data>(picture));
    }

protected:
    using Shared = std::shared_ptr<const Data>;
    virtual Result<Data> read(const ViewRequest& request, Backend& backend, Monitor& monitor) const = 0;
    virtual void show(Plot& plot, const ViewRequest& request, const Shared& data) const = 0;

private:
    ViewInfo info_;
};

} // namespace rankscope
