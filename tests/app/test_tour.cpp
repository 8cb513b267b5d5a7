// SPDX-License-Identifier: GPL-3.0-or-later
// Guided tours: formulas that are drawn, every page of every tour light and dark, and a lecture (walk 4) with
// real keys and clicks.
#include "app/workbench/actions.h"
#include "app/workbench/main_window.h"
#include "app/workbench/tour/picture_painter.h"
#include "app/workbench/tour/tour_window.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QComboBox>
#include <QDir>
#include <QImage>
#include <QLabel>
#include <QPushButton>
#include <QSet>
#include <QSignalSpy>
#include <QSlider>
#include <QSpinBox>
#include <QTemporaryDir>
#include <QToolButton>
#include <QWindow>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr int k_long = 60000;

QImage drawnFormula(const QString& source, const QString& lit)
{
    QImage image(700, 160, QImage::Format_RGB32);
    image.fill(Qt::white);
    QPainter painter(&image);
    QFont font = QApplication::font();
    font.setPointSizeF(16.0);
    Formula(source).paint(painter, {10.0, 10.0, 680.0, 140.0}, font, {Qt::black, Qt::red, lit});
    return image;
}

QRect inkOf(const QImage& image)
{
    QRect ink;
    for (int y = 0; y < image.height(); ++y)
        for (int x = 0; x < image.width(); ++x)
            if (image.pixelColor(x, y) != QColor(Qt::white))
                ink |= QRect(x, y, 1, 1);
    return ink;
}

bool hasRed(const QImage& image)
{
    for (int y = 0; y < image.height(); ++y)
        for (int x = 0; x < image.width(); ++x)
            if (const QColor color = image.pixelColor(x, y); color.red() > 200 && color.green() < 80)
                return true;
    return false;
}

int distinctColors(const QImage& picture)
{
    QSet<QRgb> colors;
    for (int y = 0; y < picture.height(); y += 2)
        for (int x = 0; x < picture.width(); x += 2)
            colors.insert(picture.pixel(x, y));
    return static_cast<int>(colors.size());
}

} // namespace

class TestTour : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void cleanup();
    void formulas_are_laid_out();
    void broken_formulas_say_so();
    void every_formula_of_the_tours();
    void a_lecture();
    void pages_by_mouse_and_keys();
    void every_page_light_and_dark();
    void pages_as_files();
    void tours_follow_the_model();
    void less_motion();

private:
    void openWindow();
    TourWindow& startTour(const char* id);
    double figure(const char* name) const { return window_->tourWindow()->shown()->lesson.figures.at(name); }

    PrivateSettings settings_;
    std::unique_ptr<MainWindow> window_;
};

void TestTour::initTestCase()
{
    qputenv("QT_LOGGING_RULES", "qt.qpa.*=false");
    Theme::instance().apply(*qApp, Theme::Choice::Light);
}

void TestTour::cleanup()
{
    if (window_) {
        window_->runner().cancelAll();
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    }
    window_.reset();
}

void TestTour::openWindow()
{
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = settings_.path(QStringLiteral("work"));
    options.remember_layout = false;
    window_ = std::make_unique<MainWindow>(options);
    window_->show();
    window_->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(window_.get()));
}

TourWindow& TestTour::startTour(const char* id)
{
    if (!window_)
        openWindow();
    window_->showTour(QString::fromLatin1(id));
    TourWindow& tour = *window_->tourWindow();
    if (!QTest::qWaitFor([&] { return tour.ready() && tour.tour() == QLatin1String(id); }, k_long))
        qFatal("the tour is not ready: %s", qPrintable(tour.canvas().message()));
    return tour;
}

void TestTour::formulas_are_laid_out()
{
    const QRect plain = inkOf(drawnFormula(QStringLiteral("a"), {}));
    const QRect over = inkOf(drawnFormula(QStringLiteral("\\frac{a}{b}"), {}));
    QVERIFY(over.height() > 1.8 * plain.height()); // one above the other, with a bar between
    const QRect power = inkOf(drawnFormula(QStringLiteral("a^2"), {}));
    QVERIFY(power.top() < plain.top() || power.height() > plain.height());
    const QRect side = inkOf(drawnFormula(QStringLiteral("a_2"), {}));
    QVERIFY(side.height() > plain.height());
    const QRect hat = inkOf(drawnFormula(QStringLiteral("\\hat{a}"), {}));
    QVERIFY(hat.height() > plain.height());
    const QRect bracket = inkOf(drawnFormula(QStringLiteral("\\left(\\frac{a}{b}\\right)"), {}));
    QVERIFY(bracket.height() >= over.height());
    const QString with_term = QStringLiteral("W = \\term{q}{Q} + L R");
    QVERIFY(!hasRed(drawnFormula(with_term, {})));
    QVERIFY(hasRed(drawnFormula(with_term, QStringLiteral("q"))));
    QVERIFY(!hasRed(drawnFormula(with_term, QStringLiteral("other"))));
    // A lit term takes no more room: nothing moves.
    const QSizeF size = Formula(with_term).size(QApplication::font(), 400.0);
    QVERIFY(size.width() > 0.0 && size.height() > 0.0);
    QCOMPARE(Formula(with_term).spoken(), QStringLiteral("W = Q + LR"));
    QCOMPARE(Formula(with_term).terms(), QStringList{QStringLiteral("q")});
    // Too long for the room: smaller, never cut off.
    const QString lengthy = QStringLiteral("a+b+c+d+e+f+g+h+a+b+c+d+e+f+g+h+a+b+c+d+e+f+g+h");
    QFont large = QApplication::font();
    large.setPointSizeF(20.0);
    QVERIFY(Formula(lengthy).size(large, 5000.0).width() > 600.0);
    QVERIFY(Formula(lengthy).size(large, 600.0).width() <= 600.0);
    const QString two_lines = QStringLiteral("a+b+c+d+e+f \\quad g+h+i+j+k+l");
    const double wide = Formula(two_lines).size(QApplication::font(), 900.0).height();
    QVERIFY(Formula(two_lines).size(QApplication::font(), 150.0).height() > 1.5 * wide);
}

void TestTour::broken_formulas_say_so()
{
    for (const char* source : {"\\frac{a", "a}", "\\nothing", "a^", "\\left( a", "\\term", "a^2^3", "{{{{",
                               "\\frac", "\\", "_", "\\term{q"}) {
        const Formula formula(QString::fromLatin1(source));
        if (qstrcmp(source, "\\") != 0 && qstrcmp(source, "_") != 0)
            QVERIFY2(!formula.problem().isEmpty(), source);
        drawnFormula(QString::fromLatin1(source), QStringLiteral("q")); // and is drawn without harm
    }
    QString deep;
    for (int i = 0; i < 5000; ++i)
        deep += QStringLiteral("{\\frac");
    QVERIFY(!Formula(deep).problem().isEmpty());
}

void TestTour::every_formula_of_the_tours()
{
    const auto scripts = tourScripts();
    VERIFY_OK(scripts);
    QCOMPARE(scripts->size(), qsizetype{4});
    QCOMPARE((*scripts)[0].pages.size(), std::size_t{8});
    for (const TourScript& script : *scripts) {
        for (const TourPage& page : script.pages) {
            const Formula formula(QString::fromStdString(page.formula));
            QVERIFY2(formula.problem().isEmpty(), qPrintable(formula.problem()));
            for (const TourFrame& frame : page.frames)
                QVERIFY2(frame.lit.empty() || formula.terms().contains(QString::fromStdString(frame.lit)),
                         frame.lit.c_str());
        }
    }
}

void TestTour::a_lecture()
{
    openWindow();
    QTest::keyClick(window_.get(), Qt::Key_F11); // with nothing open: the tour opens the sample
    TourWindow* tour = window_->tourWindow();
    QVERIFY(tour);
    QVERIFY(tour->presenting());
    QVERIFY(!tour->isModal());
    QTRY_VERIFY_WITH_TIMEOUT(tour->ready(), k_long);
    QCOMPARE(tour->pageCount(), 8);
    QVERIFY(!tour->findChild<QComboBox*>(QStringLiteral("tour_choice"))->isVisible()); // no chrome
    auto* text = tour->findChild<QLabel*>(QStringLiteral("tour_text"));
    QVERIFY(text->font().pointSizeF() > 1.4 * QApplication::font().pointSizeF());
    auto* ring = tour->findChild<PointerRing*>();
    QVERIFY(ring->isVisible());
    QTest::mouseMove(tour->windowHandle(), tour->canvas().mapTo(tour, QPoint(120, 90)));
    QTRY_COMPARE(ring->place(), tour->canvas().mapTo(tour, QPoint(120, 90)));

    for (int page = 1; page <= 5; ++page) {
        QTest::keyClick(&tour->canvas(), Qt::Key_Right);
        QCOMPARE(tour->page(), page);
    }
    QTest::keyClick(&tour->canvas(), Qt::Key_Left); // back twice: step 4
    QTest::keyClick(&tour->canvas(), Qt::Key_Left);
    QCOMPARE(tour->page(), 3);
    auto* k = tour->findChild<QSpinBox*>(QStringLiteral("tour_outliers"));
    QVERIFY(k->isVisible());
    QCOMPARE(k->value(), 16);
    const double before = figure("left_strongest");
    QSignalSpy computed(tour, &TourWindow::tourReady);
    QTest::mouseClick(k, Qt::LeftButton, {}, QPoint(10, k->height() / 2));
    QTest::keyClick(k, Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(k, QStringLiteral("4"));
    QTest::keyClick(k, Qt::Key_Return);
    QVERIFY(computed.wait(k_long));
    QCOMPARE(figure("k"), 4.0);
    QVERIFY(figure("left_strongest") > 10.0 * before); // the residual gets worse
    QCOMPARE(tour->page(), 3);                         // and the lecture goes on where it was
    QVERIFY(text->text().contains(QStringLiteral("k = 4")));

    QTRY_VERIFY(!tour->canvas().fading()); // else the old picture shines through
    const QImage presented = tour->grab().toImage();
    QVERIFY(presented.save(QString::fromStdString(artifact_folder().string())
                           + QStringLiteral("/tour_presented.png")));
    QVERIFY(distinctColors(presented) > 60);

    // A question is answered when asked for, and hidden again on the next page.
    auto* answer = tour->findChild<QLabel*>(QStringLiteral("tour_answer"));
    QVERIFY(!answer->isVisible());
    QTest::mouseClick(tour->findChild<QPushButton*>(QStringLiteral("tour_answer_button")), Qt::LeftButton);
    QVERIFY(answer->isVisible());
    tour->canvas().setFocus();
    QTest::keyClick(&tour->canvas(), Qt::Key_Right);
    QVERIFY(!answer->isVisible());
    QTest::keyClick(&tour->canvas(), Qt::Key_A);
    QVERIFY(answer->isVisible());

    QTest::keyClick(&tour->canvas(), Qt::Key_F11);
    QVERIFY(!tour->presenting());
    QVERIFY(!ring->isVisible());
    QTemporaryDir folder;
    VERIFY_OK(tour->exportTo(folder.filePath(QStringLiteral("lecture.pdf"))));
    QVERIFY(QFileInfo(folder.filePath(QStringLiteral("lecture.pdf"))).size() > 20000);
    // The main window was usable all along.
    window_->session().selectLayer(QStringLiteral("model.layers.1.self_attn.q_proj"));
    QCOMPARE(window_->session().selection().layer, QStringLiteral("model.layers.1.self_attn.q_proj"));
}

void TestTour::pages_by_mouse_and_keys()
{
    TourWindow& tour = startTour("odlri");
    const auto press = [&](const char* name) {
        QTest::mouseClick(tour.findChild<QToolButton*>(QString::fromLatin1(name)), Qt::LeftButton);
    };
    press("tour_next");
    QCOMPARE(tour.page(), 1);
    QCOMPARE(tour.formulaPanel().lit(), QStringLiteral("energy"));
    tour.canvas().setFocus();
    QTest::keyClick(&tour.canvas(), Qt::Key_Down);
    QCOMPARE(tour.frame(), 1);
    QCOMPARE(tour.formulaPanel().lit(), QStringLiteral("columns"));
    press("tour_back");
    QCOMPARE(tour.page(), 0);
    press("tour_back"); // nothing before the first
    QCOMPARE(tour.page(), 0);
    QTest::keyClick(&tour.canvas(), Qt::Key_End);
    QCOMPARE(tour.page(), 7);
    auto* scrub = tour.findChild<QSlider*>(QStringLiteral("tour_scrub"));
    QCOMPARE(scrub->value(), scrub->maximum());
    QTest::keyClick(scrub, Qt::Key_Home);
    QCOMPARE(tour.page(), 0);
    scrub->setValue(scrub->maximum() / 2);
    QVERIFY(tour.page() > 0);

    // It plays by itself, at the speed chosen, until it is stopped or through.
    QTest::keyClick(&tour.canvas(), Qt::Key_Home);
    auto* speed = tour.findChild<QComboBox*>(QStringLiteral("tour_speed"));
    speed->setFocus();
    QTest::keyClick(speed, Qt::Key_End);
    QCOMPARE(speed->currentText(), QStringLiteral("4×"));
    tour.canvas().setFocus();
    QTest::keyClick(&tour.canvas(), Qt::Key_Space);
    QVERIFY(tour.playing());
    QTRY_VERIFY_WITH_TIMEOUT(tour.page() == 1, 15000);
    QTest::keyClick(&tour.canvas(), Qt::Key_Space);
    QVERIFY(!tour.playing());
    QVERIFY(!tour.canvas().accessibleDescription().isEmpty());
    QTest::keyClick(&tour.canvas(), Qt::Key_Escape);
    QVERIFY(!tour.isVisible());
}

void TestTour::every_page_light_and_dark()
{
    for (const QString& id : tourNames()) {
        TourWindow& tour = startTour(qPrintable(id));
        tour.setReducedMotion(true);
        for (const bool dark : {false, true}) {
            Theme::instance().apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
            for (int page = 0; page < tour.pageCount(); ++page) {
                const auto frames = tour.shown()->script.pages[static_cast<std::size_t>(page)].frames.size();
                tour.setPage(page, static_cast<int>(frames) - 1);
                QTest::qWait(30);
                const QImage picture = tour.grab().toImage();
                const QString file = QStringLiteral("%1/tour_%2_%3_%4.png")
                                         .arg(QString::fromStdString(artifact_folder().string()), id)
                                         .arg(page + 1)
                                         .arg(dark ? QStringLiteral("dark") : QStringLiteral("light"));
                QVERIFY(picture.save(file));
                QVERIFY2(distinctColors(picture) > 60, qPrintable(file));
                const int corner = qGray(picture.pixel(4, 70));
                QVERIFY2(dark ? corner < 60 : corner > 200, qPrintable(file));
                auto* text = tour.findChild<QLabel*>(QStringLiteral("tour_text"));
                QVERIFY2(text->height() >= text->heightForWidth(text->width()), qPrintable(file));
            }
        }
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }
}

void TestTour::pages_as_files()
{
    TourWindow& tour = startTour("lrq");
    QTemporaryDir folder;
    const QString pictures = folder.filePath(QStringLiteral("pages"));
    VERIFY_OK(tour.exportTo(pictures));
    const QStringList files = QDir(pictures).entryList({QStringLiteral("*.png")}, QDir::Files, QDir::Name);
    QCOMPARE(files.size(), tour.pageCount());
    QCOMPARE(files.first(), QStringLiteral("page-01.png"));
    for (const QString& file : files) {
        const QImage page(pictures + QLatin1Char('/') + file);
        QVERIFY(distinctColors(page) > 40);
        QCOMPARE(page.pixelColor(2, 2), QColor(Qt::white)); // for paper, whatever the theme is
    }
    const QString pdf = folder.filePath(QStringLiteral("tour.pdf"));
    VERIFY_OK(tour.exportTo(pdf));
    QFile file(pdf);
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QByteArray bytes = file.readAll();
    QVERIFY(bytes.startsWith("%PDF"));
    QVERIFY(bytes.contains("/Count " + QByteArray::number(tour.pageCount())));
    const Status refused = tour.exportTo(QStringLiteral("/proc/no/such/tour.pdf"));
    QVERIFY(!refused);
    QVERIFY(refused.error().sentence().find("/proc/no/such") != std::string::npos);
}

void TestTour::tours_follow_the_model()
{
    TourWindow& tour = startTour("outliers");
    auto* layers = tour.findChild<QComboBox*>(QStringLiteral("tour_layer"));
    QCOMPARE(layers->count(), 36); // all linear layers of the sample and the tour's own choice
    QSignalSpy computed(&tour, &TourWindow::tourReady);
    layers->setFocus();
    QTest::keyClick(layers, Qt::Key_Down);
    QVERIFY(computed.wait(k_long));
    QCOMPARE(tour.shown()->lesson.layer, std::string("model.layers.0.self_attn.q_proj"));
    window_->session().close();
    QVERIFY(!tour.ready());
    QVERIFY(!tour.canvas().message().isEmpty());
    QVERIFY(!tour.exportTo(QStringLiteral("x.pdf")));
}

void TestTour::less_motion()
{
    TourWindow& tour = startTour("odlri");
    tour.setReducedMotion(false);
    QTest::qWait(50);
    tour.setPage(1);
    QVERIFY(tour.canvas().fading());
    QTRY_VERIFY(!tour.canvas().fading());
    tour.setReducedMotion(true);
    tour.setPage(2);
    QVERIFY(!tour.canvas().fading());
}

QTEST_MAIN(TestTour)
#include "test_tour.moc"
