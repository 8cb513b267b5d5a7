// SPDX-License-Identifier: GPL-3.0-or-later
// Help in the program: the glossary and its page, texts for every part of the window, F1, tooltips, hints.
#include "app/workbench/actions.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/help/help.h"
#include "app/workbench/help/hint_bar.h"
#include "app/workbench/main_window.h"
#include "app/workbench/views/view.h"
#include "app/workbench/widgets/data_table.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"

#include <QDockWidget>
#include <QFile>
#include <QHeaderView>
#include <QPushButton>
#include <QSet>
#include <QSignalSpy>
#include <QWhatsThis>

using namespace rankscope;
using namespace rankscope::test;

namespace {
constexpr int k_long = 60000;
}

class TestHelp : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { Theme::instance().apply(*qApp, Theme::Choice::Light); }
    void cleanup();
    void the_glossary_is_the_page();
    void words_are_found_whole();
    void every_part_has_a_text();
    void f1_explains_the_focus();
    void headers_explain_their_words();
    void hints_go_away_for_good();

private:
    void openWindow(bool persons);

    PrivateSettings settings_;
    std::unique_ptr<MainWindow> window_;
};

void TestHelp::cleanup()
{
    if (window_) {
        window_->runner().cancelAll();
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    }
    window_.reset();
}

void TestHelp::openWindow(bool persons)
{
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = settings_.path(QStringLiteral("work"));
    options.remember_layout = persons;
    window_ = std::make_unique<MainWindow>(options);
    window_->show();
    window_->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(window_.get()));
    QSignalSpy opened(&window_->workflow(), &Workflow::opened);
    window_->openSample();
    QVERIFY(opened.wait(k_long));
}

void TestHelp::the_glossary_is_the_page()
{
    const Help& help = Help::instance();
    QVERIFY(help.glossary().size() >= 15);
    QSet<QString> seen;
    for (const GlossaryEntry& entry : help.glossary()) {
        QVERIFY2(!entry.id.isEmpty() && !entry.term.isEmpty() && entry.text.endsWith(QLatin1Char('.')),
                 qPrintable(entry.id));
        QVERIFY2(!entry.words.isEmpty(), qPrintable(entry.id));
        for (const QString& word : entry.words) {
            QVERIFY2(!seen.contains(word), qPrintable(word)); // a word means one thing
            seen.insert(word);
            QCOMPARE(word, word.toLower());
        }
    }
    QFile page(QStringLiteral(RANKSCOPE_SOURCE_DIR "/docs/glossary.md"));
    QVERIFY(page.open(QIODevice::ReadOnly));
    QCOMPARE(QString::fromUtf8(page.readAll()), help.glossaryPage());
}

void TestHelp::words_are_found_whole()
{
    const Help& help = Help::instance();
    const auto ids = [&](const char* text) {
        QStringList found;
        for (const GlossaryEntry* entry : help.termsIn(QString::fromUtf8(text), 9))
            found << entry->id;
        return found;
    };
    QCOMPARE(ids("Rank"), QStringList{QStringLiteral("rank")});
    QCOMPARE(ids("rankscope franking"), QStringList());
    QCOMPARE(ids("the group's Hessian"), (QStringList{QStringLiteral("group"), QStringLiteral("hessian")}));
    QCOMPARE(ids(""), QStringList());
    QCOMPARE(help.termsIn(QStringLiteral("rank group scale crest"), 2).size(), qsizetype{2});
}

void TestHelp::every_part_has_a_text()
{
    openWindow(false);
    for (auto text = Help::instance().controls().begin(); text != Help::instance().controls().end(); ++text) {
        if (text.key().startsWith(QLatin1String("export_"))) // made when it is asked for
            continue;
        const auto* widget = window_->findChild<QWidget*>(text.key());
        QVERIFY2(widget, qPrintable(text.key()));
        QCOMPARE(widget->whatsThis(), text.value());
    }
    for (const QString& id : viewIds()) // a new view needs a text too
        QVERIFY2(Help::instance().controls().contains(id + QStringLiteral("_plot")), qPrintable(id));
    for (const auto* dock : window_->findChildren<QDockWidget*>())
        QVERIFY2(!dock->whatsThis().isEmpty(), qPrintable(dock->objectName()));
}

void TestHelp::f1_explains_the_focus()
{
    openWindow(false);
    DataTable& table = window_->planDock().table();
    table.setFocus();
    const QString text = Help::instance().about(&table);
    QVERIFY(text.contains(QStringLiteral("What will be done with each layer")));
    QVERIFY(text.contains(QStringLiteral("<b>Rank.</b>"))); // and the words in it
    QTest::keyClick(&table, Qt::Key_F1);
    QTRY_VERIFY(QApplication::topLevelWidgets().size() > 1);
    QWidget* shown = nullptr;
    for (QWidget* widget : QApplication::topLevelWidgets())
        if (widget->isVisible() && widget->inherits("QWhatsThat"))
            shown = widget;
    QVERIFY(shown);
    const QString folder = QString::fromStdString(artifact_folder().string());
    QVERIFY(shown->grab().save(folder + QStringLiteral("/help_focus.png")));
    QWhatsThis::hideText();
    QVERIFY(Help::instance().about(nullptr).isEmpty());
}

void TestHelp::headers_explain_their_words()
{
    openWindow(false);
    DataTable& table = window_->planDock().table();
    QHeaderView& header = *table.horizontalHeader();
    QString found;
    for (int section = 0; section < header.count(); ++section) {
        const QString title = table.model()->headerData(section, Qt::Horizontal).toString();
        const QString text = GlossaryToolTips::textAt(
            header.viewport(), {header.sectionViewportPosition(section) + 3, header.height() / 2});
        if (title.compare(QLatin1String("rank"), Qt::CaseInsensitive) == 0)
            found = text;
    }
    QVERIFY2(found.contains(QStringLiteral("Columns of L and rows of R")), qPrintable(found));
    QCOMPARE(GlossaryToolTips::textAt(window_.get(), {5, 5}), QString());
}

void TestHelp::hints_go_away_for_good()
{
    openWindow(true);
    QCOMPARE(window_->hints().hint(), QStringLiteral("first_model"));
    QVERIFY(window_->hints().isVisible());
    const QString folder = QString::fromStdString(artifact_folder().string());
    for (const bool dark : {false, true}) {
        Theme::instance().apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
        QTest::qWait(300);
        QVERIFY(window_->grab().save(
            folder + (dark ? QStringLiteral("/hint_dark.png") : QStringLiteral("/hint_light.png"))));
    }
    Theme::instance().apply(*qApp, Theme::Choice::Light);
    cleanup();
    openWindow(true); // not answered yet
    QVERIFY(window_->hints().isVisible());
    QTest::mouseClick(window_->hints().findChild<QPushButton*>(QStringLiteral("hint_gone")), Qt::LeftButton);
    QVERIFY(!window_->hints().isVisible());
    cleanup();
    openWindow(true);
    QVERIFY(!window_->hints().isVisible());
    cleanup();
    openWindow(false);
    QVERIFY(!window_->hints().isVisible());
}

QTEST_MAIN(TestHelp)
#include "test_help.moc"
