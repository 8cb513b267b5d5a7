// SPDX-License-Identifier: GPL-3.0-or-later
// Documentation that the program can print must be what the program prints; links in it must lead somewhere.
#include "tests/support/command.h"

#include <QDirIterator>
#include <QFile>
#include <QFileInfo>
#include <QRegularExpression>
#include <QTest>

using rankscope::test::run_cli;

class TestDocs : public QObject {
    Q_OBJECT

    static QString read(const QString& file)
    {
        QFile source(file);
        return source.open(QIODevice::ReadOnly) ? QString::fromUtf8(source.readAll()) : QString();
    }

private Q_SLOTS:
    void methods_page_is_what_the_program_prints()
    {
        const auto printed = run_cli({"methods", "--markdown"});
        QCOMPARE(printed.status, 0);
        const QString page = read(QStringLiteral(RANKSCOPE_SOURCE_DIR "/docs/methods.md"));
        const qsizetype start = page.indexOf("\n### ");
        QVERIFY(start > 0);
        QCOMPARE(page.mid(start + 1).trimmed(), QString::fromUtf8(printed.output).trimmed());
    }

    void links_lead_somewhere()
    {
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        QStringList pages = {root.filePath("README.md"), root.filePath("resources/sample/LICENSES.md")};
        QDirIterator walk(root.filePath("docs"), {"*.md"}, QDir::Files, QDirIterator::Subdirectories);
        while (walk.hasNext())
            pages << walk.next();
        QVERIFY(pages.size() > 6);
        const QRegularExpression link("\\]\\(([^)#]+)(#[^)]*)?\\)");
        QStringList dead;
        for (const QString& page : pages) {
            const QString text = read(page);
            QVERIFY2(!text.isEmpty(), qPrintable(page));
            for (auto match = link.globalMatch(text); match.hasNext();) {
                const QString target = match.next().captured(1);
                if (!target.startsWith("http") && !QFileInfo::exists(QFileInfo(page).dir().filePath(target)))
                    dead << page + " → " + target;
            }
        }
        QVERIFY2(dead.isEmpty(), qPrintable(dead.join('\n')));
    }
};

QTEST_GUILESS_MAIN(TestDocs)
#include "test_docs.moc"
