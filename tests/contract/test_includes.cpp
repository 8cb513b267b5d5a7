// SPDX-License-Identifier: GPL-3.0-or-later
// Walks the #include lines of core, gpu and app and fails on an arrow that points the wrong way
// (docs/architecture.md).
#include "tests/support/test_paths.h"

#include <QDirIterator>
#include <QFile>
#include <QRegularExpression>
#include <QTest>

namespace {

/// Folders that files of a folder may include, besides their own.
const QMap<QString, QStringList>& allowed()
{
    static const QStringList tensor = {"core/base"};
    static const QStringList checkpoint = tensor + QStringList{"core/tensor"};
    static const QStringList compute = checkpoint;
    static const QStringList model = checkpoint + QStringList{"core/checkpoint", "core/compute"};
    static const QStringList linalg = compute + QStringList{"core/compute"};
    static const QStringList quantize = linalg + QStringList{"core/linalg"};
    static const QStringList calibration = model + QStringList{"core/model"};
    static const QStringList methods =
        quantize + QStringList{"core/quantize", "core/calibration", "core/checkpoint", "core/model"};
    static const QStringList plan = methods + QStringList{"core/methods"};
    static const QStringList run = plan + QStringList{"core/plan"};
    static const QStringList after_run = run + QStringList{"core/run"};
    static const QMap<QString, QStringList> table = {
        {"core/base", {}},
        {"core/tensor", tensor},
        {"core/checkpoint", checkpoint},
        {"core/compute", compute},
        {"core/model", model},
        {"core/linalg", linalg},
        {"core/quantize", quantize},
        {"core/calibration", calibration},
        {"core/methods", methods},
        {"core/plan", plan},
        {"core/run", run},
        {"core/evaluate", after_run},
        {"core/teaching", methods + QStringList{"core/methods"}},
        {"core/export", after_run + QStringList{"core/evaluate"}},
        {"gpu", {"core/base", "core/tensor", "core/compute"}},
    };
    return table;
}

QString folder_of(const QString& path)
{
    const QStringList parts = path.split('/');
    return parts.first() == "core" ? parts.value(0) + '/' + parts.value(1) : parts.first();
}

/// Libraries that only these path patterns may include.
const QVector<QPair<QRegularExpression, QRegularExpression>>& library_rules()
{
    using Re = QRegularExpression;
    static const QVector<QPair<Re, Re>> rules = {
        {Re("^(Q[A-Z]|qcustomplot)"), Re("^app/workbench/")},
        {Re("^qcustomplot\\.h$"), Re("^app/workbench/plots/")},
        {Re("^(volk|vulkan)"), Re("^gpu/")},
        {Re("^(nlohmann|fmt|spdlog|tbb)/"), Re("\\.cpp$")},
        {Re("^(sqlite3|lapacke|cblas|pcre2|utf8proc)\\.h$"), Re("^core/.*(\\.cpp|/detail/.*)$")},
    };
    return rules;
}

} // namespace

class TestIncludes : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void arrows_point_the_right_way()
    {
        const QDir root(RANKSCOPE_SOURCE_DIR);
        const QRegularExpression include("^\\s*[#]\\s*include\\s*([<\"])([^>\"]+)[>\"]",
                                         QRegularExpression::MultilineOption);
        int files = 0;
        QStringList wrong;
        for (const QString& top : {QStringLiteral("core"), QStringLiteral("gpu"), QStringLiteral("app")}) {
            QDirIterator walk(root.filePath(top), {"*.h", "*.cpp"}, QDir::Files,
                              QDirIterator::Subdirectories);
            while (walk.hasNext()) {
                const QString path = root.relativeFilePath(walk.next());
                QFile file(root.filePath(path));
                QVERIFY(file.open(QIODevice::ReadOnly));
                const QString text = QString::fromUtf8(file.readAll());
                ++files;
                for (auto match = include.globalMatch(text); match.hasNext();) {
                    const auto hit = match.next();
                    check(path, hit.captured(2), hit.captured(1) == "\"", wrong);
                }
            }
        }
        QVERIFY2(files > 40, "the sources were not found");
        QVERIFY2(wrong.isEmpty(), qPrintable('\n' + wrong.join('\n')));
    }

    void rules_catch_a_planted_arrow()
    {
        QStringList wrong;
        check("core/base/x.cpp", "core/model/model.h", true, wrong);
        check("gpu/x.cpp", "core/methods/method.h", true, wrong);
        check("core/run/x.cpp", "QString", false, wrong);
        check("core/run/x.h", "fmt/format.h", false, wrong);
        check("app/workbench/docks/x.cpp", "qcustomplot.h", false, wrong);
        check("core/tensor/x.cpp", "app/cli/options.h", true, wrong);
        QCOMPARE(wrong.size(), 6);
        check("app/cli/x.cpp", "core/run/run.h", true, wrong);
        check("core/linalg/x.cpp", "lapacke.h", false, wrong);
        QCOMPARE(wrong.size(), 6);
    }

private:
    static void check(const QString& path, const QString& target, bool own, QStringList& wrong)
    {
        const auto complain = [&] { wrong << path + " includes " + target; };
        if (own) {
            const QString from = folder_of(path);
            const QString to = folder_of(target);
            if (to == "app" && from != "app")
                complain();
            else if (from != "app" && to != from && !allowed().value(from).contains(to))
                complain();
            else if (target.contains("/detail/") && to != from)
                complain();
            if (path.startsWith("app/workbench/docks/") && target.startsWith("app/workbench/docks/")
                && QFileInfo(path).completeBaseName() != QFileInfo(target).completeBaseName())
                complain(); // docks share the selection, never each other
        }
        for (const auto& [library, place] : library_rules()) {
            if (library.match(target).hasMatch() && !place.match(path).hasMatch()) {
                complain();
                return;
            }
        }
    }
};

QTEST_GUILESS_MAIN(TestIncludes)
#include "test_includes.moc"
