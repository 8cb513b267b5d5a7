// SPDX-License-Identifier: GPL-3.0-or-later
// A picture of every view and of the start page, light and dark, at 1×, 1.5× and 2×, for people to look at;
// checked by code for emptiness and for texts that are cut off. The scale of a process is fixed at its start:
// each is a child.
#include "app/workbench/comparer.h"
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/views/view.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"

#include <QAbstractButton>
#include <QComboBox>
#include <QLabel>
#include <QPixmap>
#include <QProcess>
#include <QSet>
#include <QTemporaryDir>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const char k_scale_variable[] = "RANKSCOPE_PICTURE_SCALE";
const char k_work_variable[] = "RANKSCOPE_PICTURE_WORK";
constexpr int k_long = 120000;

QString pictureFile(const QString& view, bool dark, const QString& scale)
{
    return QStringLiteral("%1/window_%2_%3_%4x.png")
        .arg(QString::fromStdString(artifact_folder().string()), view,
             dark ? QStringLiteral("dark") : QStringLiteral("light"), scale);
}

/// Different colours in a picture: an empty view has a handful, text and plots have hundreds.
int distinctColors(const QImage& picture)
{
    QSet<QRgb> colors;
    for (int y = 0; y < picture.height(); y += 2) {
        for (int x = 0; x < picture.width(); x += 2)
            colors.insert(picture.pixel(x, y));
    }
    return static_cast<int>(colors.size());
}

/// Labels, buttons and boxes whose text needs more room than they have.
QStringList clippedTexts(const QWidget& window)
{
    QStringList clipped;
    const auto check = [&clipped](const QWidget& widget, const QString& text) {
        if (!widget.isVisible() || text.isEmpty() || widget.visibleRegion().isEmpty())
            return;
        if (widget.sizePolicy().horizontalPolicy()
            == QSizePolicy::Ignored) // elides on purpose, whole in its tooltip
            return;
        const QSize needed = widget.minimumSizeHint();
        if (widget.width() + 1 < needed.width() || widget.height() + 1 < needed.height())
            clipped << QStringLiteral("“%1” needs %2×%3, has %4×%5")
                           .arg(text)
                           .arg(needed.width())
                           .arg(needed.height())
                           .arg(widget.width())
                           .arg(widget.height());
    };
    for (const auto* label : window.findChildren<QLabel*>()) {
        check(*label, label->text());
        if (label->isVisible() && label->wordWrap()
            && label->heightForWidth(label->width()) > label->height() + 1
            && !label->visibleRegion().isEmpty())
            clipped << QStringLiteral("“%1” has lines below its edge").arg(label->text());
    }
    for (const auto* button : window.findChildren<QAbstractButton*>())
        check(*button, button->text());
    for (const auto* box : window.findChildren<QComboBox*>())
        check(*box, box->currentText());
    return clipped;
}

/// Draws everything at this process's scale. Prints what is wrong; 0: nothing.
class Painter {
public:
    int paint()
    {
        Theme::instance().apply(*qApp, Theme::Choice::Light);
        WindowOptions options;
        options.backend = QStringLiteral("cpu");
        options.work_root = qEnvironmentVariable(k_work_variable);
        options.remember_layout = false;
        options.restore_plan = false;
        window_ = std::make_unique<MainWindow>(options);
        window_->resize(1280, 800);
        window_->show();
        if (!QTest::qWaitForWindowExposed(window_.get()))
            return 1;
        settle();
        picture(*window_, QStringLiteral("start"), 30);
        doTheJob();
        if (failures_ > 0)
            return failures_;
        for (const QString& view : viewIds()) {
            window_->showView(view);
            window_->showView(QStringLiteral("plan"));
            picture(*window_, view, 100);
        }
        comparison();
        for (const char* dock : {"results", "jobs"}) {
            window_->showView(QStringLiteral("channels"));
            window_->showView(QString::fromLatin1(dock));
            picture(*window_, QString::fromLatin1(dock), 100);
        }
        // The smallest window that everything must fit into: 1080p at 150 %.
        window_->resize(1280, 680);
        window_->showView(QStringLiteral("results"));
        picture(*window_, QStringLiteral("small"), 100);
        window_->banner().show(
            MessageBanner::Kind::Error,
            QStringLiteral("Not opened: model.safetensors: the file is incomplete, its header promises "
                           "4,976,698,672 bytes and it has 3,221,225,472. Download it again."),
            {{QStringLiteral("Choose file…"), [] {}}});
        picture(*window_, QStringLiteral("banner"), 100);
        window_->banner().dismiss();
        exportDialog();
        return failures_;
    }

private:
    void settle()
    {
        QTest::qWait(60);
        const bool idle = QTest::qWaitFor([this] { return window_->runner().idle(); }, k_long);
        if (!idle)
            fail(QStringLiteral("jobs do not end"));
        QTest::qWait(150); // queued replots
    }

    void doTheJob()
    {
        window_->openSample();
        settle();
        Session& session = window_->session();
        if (!session.model() || !session.calibration()) {
            fail(
                QStringLiteral("the sample was not opened and calibrated: %1").arg(window_->banner().text()));
            return;
        }
        if (session.run() && session.run()->complete())
            window_->workflow().evaluate();
        else
            window_->workflow().run();
        if (!QTest::qWaitFor([&] { return session.evaluation().has_value(); }, k_long))
            fail(QStringLiteral("the sample was not run and evaluated: %1").arg(window_->banner().text()));
        session.selectLayer(QStringLiteral("model.layers.2.mlp.down_proj"));
        session.selectChannel(15);
        settle();
        if (window_->channelPlot().outliers().isEmpty())
            fail(QStringLiteral("no outlier is drawn"));
        if (window_->spectrumPlot().largestRank() != 64)
            fail(QStringLiteral("no spectrum is drawn"));
        if (window_->resultsDock().plot().traces().isEmpty())
            fail(QStringLiteral("no error trace is drawn"));
    }

    void comparison()
    {
        window_->comparer().startWithRun();
        settle();
        if (!window_->session().comparison())
            fail(QStringLiteral("the run was not compared: %1").arg(window_->banner().text()));
        for (const char* view : {"channels", "spectrum", "histogram"}) {
            window_->showView(QString::fromLatin1(view));
            picture(*window_, QStringLiteral("compare_%1").arg(QString::fromLatin1(view)), 100);
        }
        window_->comparer().stop();
    }

    void exportDialog()
    {
        ExportDialog dialog(window_->session(), window_->workflow(), window_.get());
        dialog.show();
        settle();
        picture(dialog, QStringLiteral("export"), 30);
    }

    void picture(QWidget& widget, const QString& view, int least_colors)
    {
        for (const bool dark : {false, true}) {
            Theme::instance().apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
            settle();
            const QString file = pictureFile(view, dark, qEnvironmentVariable(k_scale_variable));
            const QPixmap pixmap = widget.grab();
            if (!pixmap.save(file))
                fail(QStringLiteral("%1 cannot be written").arg(file));
            const int colors = distinctColors(pixmap.toImage());
            if (colors < least_colors)
                fail(QStringLiteral("%1 shows only %2 colours").arg(file).arg(colors));
            const int wide = qRound(widget.width() * qEnvironmentVariable(k_scale_variable).toDouble());
            if (std::abs(pixmap.width() - wide) > 1)
                fail(QStringLiteral("%1 is %2 pixels wide, not %3").arg(file).arg(pixmap.width()).arg(wide));
        }
        for (const QString& text : clippedTexts(widget))
            fail(QStringLiteral("%1: %2").arg(view, text));
    }

    void fail(const QString& what)
    {
        ++failures_;
        std::fprintf(stdout, "%s\n", qPrintable(what));
    }

    std::unique_ptr<MainWindow> window_;
    int failures_ = 0;
};

} // namespace

class TestScreenshots : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void every_view_data();
    void every_view();
    void light_and_dark_differ();
    void finds_text_that_is_cut_off();

private:
    QTemporaryDir work_; // the second scale finds the calibration and the run of the first
};

void TestScreenshots::every_view_data()
{
    QTest::addColumn<QString>("scale");
    QTest::newRow("1x") << "1";
    QTest::newRow("1.5x") << "1.5";
    QTest::newRow("2x") << "2";
}

void TestScreenshots::every_view()
{
    QFETCH(QString, scale);
    QProcess child;
    QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
    environment.insert(QString::fromLatin1(k_scale_variable), scale);
    environment.insert(QString::fromLatin1(k_work_variable), work_.path());
    environment.insert(QStringLiteral("QT_SCALE_FACTOR"), scale);
    environment.insert(QStringLiteral("QT_QPA_PLATFORM"), QStringLiteral("offscreen"));
    environment.insert(QStringLiteral("QT_LOGGING_RULES"), QStringLiteral("qt.qpa.*=false"));
    child.setProcessEnvironment(environment);
    child.setProcessChannelMode(QProcess::MergedChannels);
    child.start(QCoreApplication::applicationFilePath(), {});
    QVERIFY2(child.waitForFinished(280000), "the child process does not end");
    const QByteArray output = child.readAll();
    QCOMPARE(child.exitStatus(), QProcess::NormalExit);
    QVERIFY2(child.exitCode() == 0, output.constData());
    for (const QString& view : viewIds())
        QVERIFY2(QFile::exists(pictureFile(view, true, scale)), qPrintable(view));
}

void TestScreenshots::light_and_dark_differ()
{
    for (const char* view : {"start", "channels", "results", "export"}) {
        const QImage light(pictureFile(QString::fromLatin1(view), false, QStringLiteral("1")));
        const QImage dark(pictureFile(QString::fromLatin1(view), true, QStringLiteral("1")));
        QVERIFY2(!light.isNull() && !dark.isNull(), view);
        const auto mean = [](const QImage& picture) {
            qint64 sum = 0;
            for (int y = 0; y < picture.height(); y += 4) {
                for (int x = 0; x < picture.width(); x += 4)
                    sum += qGray(picture.pixel(x, y));
            }
            return static_cast<double>(sum) / (picture.width() / 4.0 * (picture.height() / 4.0));
        };
        QVERIFY2(mean(light) > 200.0 && mean(dark) < 80.0, view);
    }
}

void TestScreenshots::finds_text_that_is_cut_off()
{
    QWidget window;
    window.resize(300, 100);
    auto* label = new QLabel(QStringLiteral("a text of some length"), &window);
    window.show();
    label->resize(label->sizeHint());
    QCOMPARE(clippedTexts(window), QStringList());
    label->resize(40, label->height());
    QCOMPARE(clippedTexts(window).size(), 1);
    label->setWordWrap(true);
    label->resize(60, label->fontMetrics().height());
    QCOMPARE(clippedTexts(window).size(), 1);
}

int main(int argc, char** argv)
{
    QGuiApplication::setHighDpiScaleFactorRoundingPolicy(Qt::HighDpiScaleFactorRoundingPolicy::PassThrough);
    const PrivateSettings settings;
    QApplication application(argc, argv);
    std::setlocale(LC_NUMERIC, "C");
    if (qEnvironmentVariableIsSet(k_scale_variable))
        return Painter().paint();
    TestScreenshots test;
    return QTest::qExec(&test, argc, argv);
}

#include "test_screenshots.moc"
