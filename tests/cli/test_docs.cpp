// SPDX-License-Identifier: GPL-3.0-or-later
// Documentation that the program can print must be what the program prints; links in it must lead somewhere.
#include "tests/support/command.h"

#include <QDirIterator>
#include <QFile>
#include <QFileInfo>
#include <QProcess>
#include <QRegularExpression>
#include <QStandardPaths>
#include <QTemporaryDir>
#include <QTest>

using rankscope::test::run_cli;

class TestDocs : public QObject {
    Q_OBJECT

    static QString read(const QString& file)
    {
        QFile source(file);
        return source.open(QIODevice::ReadOnly) ? QString::fromUtf8(source.readAll()) : QString();
    }

    static QString without_code(QString text)
    {
        return text.remove(QRegularExpression("^```.*?^```", QRegularExpression::DotMatchesEverythingOption
                                                                 | QRegularExpression::MultilineOption));
    }

    /// What headings are called in links: lower case, spaces as hyphens, other signs left out.
    static QStringList anchors(const QString& page)
    {
        const QRegularExpression heading("^#+ (.+)$", QRegularExpression::MultilineOption);
        QStringList names;
        const QString text = without_code(page);
        for (auto match = heading.globalMatch(text); match.hasNext();)
            names << match.next()
                         .captured(1)
                         .toLower()
                         .remove(
                             QRegularExpression("[^\\w\\- ]", QRegularExpression::UseUnicodePropertiesOption))
                         .replace(' ', '-');
        return names;
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

    void command_line_page_is_what_the_program_prints()
    {
        const auto printed = run_cli({"reference"});
        QCOMPARE(printed.status, 0);
        QCOMPARE(read(QStringLiteral(RANKSCOPE_SOURCE_DIR "/docs/cli.md")).trimmed(),
                 QString::fromUtf8(printed.output).trimmed());
    }

    void completion_knows_commands_and_options()
    {
        const auto script = run_cli({"reference", "--format", "bash"});
        QCOMPARE(script.status, 0);
        const QTemporaryDir folder;
        QFile file(folder.filePath("completion"));
        QVERIFY(file.open(QIODevice::WriteOnly) && file.write(script.output) == script.output.size());
        file.close();
        const auto complete = [&](const char* words, int at) {
            QProcess bash;
            bash.start("bash", {"-c", QString("source %1; COMP_WORDS=(%2); COMP_CWORD=%3; _rankscope_cli; "
                                              "echo \"${COMPREPLY[@]}\"")
                                          .arg(file.fileName(), QString::fromLatin1(words))
                                          .arg(at)});
            return bash.waitForFinished() ? QString::fromUtf8(bash.readAllStandardOutput()).trimmed()
                                          : QString();
        };
        QCOMPARE(complete("rankscope-cli calib", 1), QStringLiteral("calibrate"));
        QCOMPARE(complete("rankscope-cli --json export model --form", 4), QStringLiteral("--format"));
        QVERIFY(complete("rankscope-cli --th", 1) == QStringLiteral("--threads"));
    }

    void zsh_and_fish_complete_too()
    {
        const QTemporaryDir folder;
        const auto script = [&](const char* shell) {
            const auto printed = run_cli({"reference", "--format", shell});
            QFile file(folder.filePath(shell));
            if (printed.status == 0 && file.open(QIODevice::WriteOnly))
                file.write(printed.output);
            return file.fileName();
        };
        const auto said = [](const QString& shell, const QStringList& arguments) {
            QProcess process;
            process.start(shell, arguments);
            process.waitForFinished();
            return QString::fromUtf8(process.readAllStandardOutput() + process.readAllStandardError());
        };
        // Every command and option is named in both, whether their shells are here or not.
        for (const char* shell : {"zsh", "fish"}) {
            const QString text = read(script(shell));
            for (const char* word : {"calibrate", "export", "format", "threads"})
                QVERIFY2(text.contains(QLatin1String(word)), shell);
        }
        if (!QStandardPaths::findExecutable("zsh").isEmpty()) {
            const QString offered = said(
                "zsh", {"-fc", QString("_describe() { print -l -- ${(P)@[-1]} }; _files() { print files }; "
                                       "words=(rankscope-cli --json export model --form); CURRENT=5; "
                                       "PREFIX=--form; source %1; words=(rankscope-cli cal); CURRENT=2; "
                                       "PREFIX=cal; source %1; words=(rankscope-cli info m); CURRENT=3; "
                                       "PREFIX=m; source %1")
                                   .arg(script("zsh"))});
            QVERIFY2(offered.contains("--format:") && offered.contains("\ncalibrate:"), qPrintable(offered));
            QVERIFY2(offered.trimmed().endsWith("files"), qPrintable(offered));
            QVERIFY2(!offered.contains("parse error"), qPrintable(offered));
        }
        if (!QStandardPaths::findExecutable("fish").isEmpty()) {
            const QString offered = said("fish", {"--no-config", "-c",
                                                  QString("source %1; complete -C 'rankscope-cli calib'; "
                                                          "complete -C 'rankscope-cli export model --form'")
                                                      .arg(script("fish"))});
            QVERIFY2(offered.startsWith("calibrate\t") && offered.contains("\n--format"),
                     qPrintable(offered));
        }
    }

    void manual_page_is_well_formed()
    {
        const auto page = run_cli({"reference", "--format", "man"});
        QCOMPARE(page.status, 0);
        QVERIFY(page.output.contains(".TH RANKSCOPE") && page.output.contains(".SS calibrate"));
        if (QStandardPaths::findExecutable("groff").isEmpty())
            QSKIP("groff is not installed");
        QProcess groff;
        groff.start("groff", {"-man", "-ww", "-Kutf8", "-Tutf8", "-z"});
        groff.write(page.output);
        groff.closeWriteChannel();
        QVERIFY(groff.waitForFinished());
        QCOMPARE(groff.exitCode(), 0);
        QCOMPARE(QString::fromUtf8(groff.readAllStandardError()), QString());
    }

    void troubleshooting_quotes_real_sentences()
    {
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        QString sources;
        for (const char* folder : {"core", "gpu", "app"}) {
            QDirIterator walk(root.filePath(folder), {"*.cpp"}, QDir::Files, QDirIterator::Subdirectories);
            while (walk.hasNext())
                sources += read(walk.next());
        }
        const QString page = read(root.filePath("docs/troubleshooting.md"));
        const QRegularExpression quote("\\*\\*\"([^\"]+)\"\\*\\*");
        QStringList unknown;
        int quotes = 0;
        for (auto match = quote.globalMatch(page); match.hasNext(); ++quotes)
            if (const QString sentence = match.next().captured(1); !sources.contains(sentence))
                unknown << sentence;
        QVERIFY(quotes >= 15);
        QVERIFY2(unknown.isEmpty(), qPrintable(unknown.join('\n')));
    }

    /// Code in the pages of worked examples is quoted from sources that are compiled.
    void quotations_are_what_the_sources_say()
    {
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        const QRegularExpression quote("<!-- from ([^ ]+) -->\n```[a-z]+\n(.*?)\n```",
                                       QRegularExpression::DotMatchesEverythingOption);
        QStringList wrong;
        for (const char* page : {"adding-a-method.md", "adding-an-architecture.md", "adding-an-exporter.md",
                                 "adding-a-kernel.md", "library.md"}) {
            const QString text = read(root.filePath(QStringLiteral("docs/") + page));
            int quotes = 0;
            for (auto match = quote.globalMatch(text); match.hasNext(); ++quotes) {
                const auto found = match.next();
                if (!('\n' + read(root.filePath(found.captured(1))))
                         .contains('\n' + found.captured(2) + '\n'))
                    wrong << QString("%1: not in %2:\n%3").arg(page, found.captured(1), found.captured(2));
            }
            QVERIFY2(quotes >= 2 && text.count("```cpp") <= quotes, page); // no code without its source
        }
        QVERIFY2(wrong.isEmpty(), qPrintable(wrong.join('\n')));
    }

    void links_lead_somewhere()
    {
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        QStringList pages = {root.filePath("README.md"),      root.filePath("CONTRIBUTING.md"),
                             root.filePath("CHANGELOG.md"),   root.filePath("SECURITY.md"),
                             root.filePath("THIRD_PARTY.md"), root.filePath("resources/sample/LICENSES.md")};
        QDirIterator walk(root.filePath("docs"), {"*.md"}, QDir::Files, QDirIterator::Subdirectories);
        while (walk.hasNext())
            pages << walk.next();
        QVERIFY(pages.size() > 6);
        const QRegularExpression link("\\]\\(([^)#]*)(?:#([^)]*))?\\)");
        QStringList dead;
        for (const QString& page : pages) {
            const QString text = without_code(read(page));
            QVERIFY2(!text.isEmpty(), qPrintable(page));
            for (auto match = link.globalMatch(text); match.hasNext();) {
                const auto found = match.next();
                if (found.captured(1).startsWith("http"))
                    continue;
                const QString target =
                    found.captured(1).isEmpty() ? page : QFileInfo(page).dir().filePath(found.captured(1));
                const QString anchor = found.captured(2);
                if (!QFileInfo::exists(target)
                    || (!anchor.isEmpty() && !anchors(read(target)).contains(anchor)))
                    dead << page + " → " + found.captured(0);
            }
        }
        QVERIFY2(dead.isEmpty(), qPrintable(dead.join('\n')));
    }

    void every_page_is_in_the_site()
    {
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        const QString settings = read(root.filePath("mkdocs.yml"));
        QStringList forgotten;
        for (const QString& page : QDir(root.filePath("docs")).entryList({"*.md"}, QDir::Files))
            if (!settings.contains(": " + page + '\n'))
                forgotten << page;
        QVERIFY2(forgotten.isEmpty(), qPrintable(forgotten.join(' ')));
    }

    /// The built site: every link, picture, script and anchor is there, and the search knows every page.
    void site_is_whole()
    {
        if (QStandardPaths::findExecutable("mkdocs").isEmpty())
            QSKIP("mkdocs is not installed");
        const QDir root(QStringLiteral(RANKSCOPE_SOURCE_DIR));
        const QTemporaryDir folder;
        const QDir site(folder.filePath("site"));
        QProcess mkdocs;
        mkdocs.setProcessChannelMode(QProcess::MergedChannels);
        mkdocs.start("mkdocs", {"build", "--strict", "--quiet", "--config-file", root.filePath("mkdocs.yml"),
                                "--site-dir", site.path()});
        QVERIFY(mkdocs.waitForFinished(120'000));
        QVERIFY2(mkdocs.exitCode() == 0, mkdocs.readAll().constData());

        const QRegularExpression reference("(?:href|src)=\"([^\"#]*)(?:#([^\"]*))?\"");
        const QString index = read(site.filePath("search/search_index.json"));
        QStringList dead;
        int links = 0;
        for (const QString& page : site.entryList({"*.html"}, QDir::Files)) {
            const QString text = read(site.filePath(page));
            for (auto match = reference.globalMatch(text); match.hasNext(); ++links) {
                const auto found = match.next();
                const QString path = found.captured(1).section('?', 0, 0);
                const QString anchor = found.captured(2);
                if (path.contains(':') || (path.startsWith('/') && page == "404.html"))
                    continue; // elsewhere; the page for a server's root
                const QString target = site.filePath(path.isEmpty() ? page : path);
                if (!QFileInfo::exists(QDir::cleanPath(target))
                    || (!anchor.isEmpty() && !read(target).contains("id=\"" + anchor + '"')))
                    dead << page + " → " + found.captured(0);
            }
        }
        QVERIFY(links > 500);
        QVERIFY2(dead.isEmpty(), qPrintable(dead.join('\n')));
        for (const QString& page : QDir(root.filePath("docs")).entryList({"*.md"}, QDir::Files))
            QVERIFY2(index.contains("\"" + page.chopped(3) + ".html"), qPrintable(page));
    }
};

QTEST_GUILESS_MAIN(TestDocs)
#include "test_docs.moc"
