// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/theme.h"

#include <QApplication>
#include <QDir>
#include <QFrame>
#include <QPainter>
#include <QSignalSpy>
#include <QStyle>
#include <QTest>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

using namespace rankscope;
using Token = Theme::Token;

namespace {

using Rgb = std::array<double, 3>; ///< linear light
using Matrix3 = std::array<Rgb, 3>;

/// Color vision deficiencies of full severity in linear sRGB: Machado, Oliveira, Fernandes, IEEE TVCG 15
/// (2009).
const Matrix3 k_normal = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
const Matrix3 k_protan = {
    {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}}};
const Matrix3 k_deutan = {
    {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}}};
const Matrix3 k_tritan = {
    {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}}};

Rgb linear(const QColor& color)
{
    const auto open = [](double c) { return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); };
    return {open(color.red() / 255.0), open(color.green() / 255.0), open(color.blue() / 255.0)};
}

double luminance(const QColor& color)
{
    const Rgb c = linear(color);
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}

double contrast(const QColor& a, const QColor& b)
{
    const double high = std::max(luminance(a), luminance(b));
    const double low = std::min(luminance(a), luminance(b));
    return (high + 0.05) / (low + 0.05);
}

Rgb lab(const QColor& color, const Matrix3& vision)
{
    const Rgb in = linear(color);
    Rgb seen{};
    for (std::size_t i = 0; i < 3; ++i)
        seen[i] = std::clamp(vision[i][0] * in[0] + vision[i][1] * in[1] + vision[i][2] * in[2], 0.0, 1.0);
    const auto f = [](double t) {
        return t > 216.0 / 24389.0 ? std::cbrt(t) : (24389.0 / 27.0 * t + 16.0) / 116.0;
    };
    const double x = f((0.4124564 * seen[0] + 0.3575761 * seen[1] + 0.1804375 * seen[2]) / 0.95047);
    const double y = f(0.2126729 * seen[0] + 0.7151522 * seen[1] + 0.0721750 * seen[2]);
    const double z = f((0.0193339 * seen[0] + 0.1191920 * seen[1] + 0.9503041 * seen[2]) / 1.08883);
    return {116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)};
}

double cie76(const QColor& a, const QColor& b, const Matrix3& vision)
{
    const Rgb u = lab(a, vision);
    const Rgb v = lab(b, vision);
    return std::sqrt(std::pow(u[0] - v[0], 2) + std::pow(u[1] - v[1], 2) + std::pow(u[2] - v[2], 2));
}

const std::array k_series = {Token::SeriesWeight, Token::SeriesQuantized, Token::SeriesLowRank,
                             Token::SeriesResidual, Token::Outlier};

/// Share of opaque pixels whose color is `wanted`.
double share_of(const QPixmap& pixmap, const QColor& wanted)
{
    const QImage image = pixmap.toImage();
    int opaque = 0;
    int same = 0;
    for (int y = 0; y < image.height(); ++y) {
        for (int x = 0; x < image.width(); ++x) {
            const QColor pixel = image.pixelColor(x, y);
            if (pixel.alpha() < 250)
                continue;
            ++opaque;
            same += pixel.rgb() == wanted.rgb() ? 1 : 0;
        }
    }
    return opaque == 0 ? 0.0 : static_cast<double>(same) / opaque;
}

} // namespace

class TestTheme : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void cleanup() { Theme::instance().apply(*qApp, Theme::Choice::Light); }

    void the_eye_model_is_right()
    {
        QVERIFY(std::fabs(contrast(Qt::black, Qt::white) - 21.0) < 1e-9);
        QVERIFY(std::fabs(lab(Qt::white, k_normal)[0] - 100.0) < 1e-3);
        QVERIFY(cie76(QColor(255, 0, 0), QColor(0, 255, 0), k_normal) > 160.0); // 170.6 in the literature
        // Red and green of equal lightness fall together for deuteranopes, not for tritanopes.
        const QColor red(200, 70, 60);
        const QColor green(115, 125, 0);
        QVERIFY(cie76(red, green, k_deutan) < 0.4 * cie76(red, green, k_tritan));
    }

    void both_palettes_data()
    {
        QTest::addColumn<bool>("dark");
        QTest::addColumn<double>("least_difference");
        QTest::newRow("light") << false << 26.0;
        QTest::newRow("dark") << true << 31.0;
    }

    void both_palettes()
    {
        QFETCH(bool, dark);
        QFETCH(double, least_difference);
        const auto at = [dark](Token token) { return Theme::color(token, dark); };
        for (const Token ground : {Token::Base, Token::Window})
            for (const Token text : {Token::Text, Token::Muted, Token::Accent, Token::Error, Token::Success})
                QVERIFY2(contrast(at(text), at(ground)) >= 4.5, qPrintable(at(text).name()));
        for (const Token ground : {Token::Base, Token::Window})
            QVERIFY(contrast(at(Token::Outline), at(ground)) >= 3.0); // WCAG 1.4.11
        for (const Token series : k_series)
            QVERIFY2(contrast(at(series), at(Token::Base)) >= 3.1, qPrintable(at(series).name()));
        const QPalette palette = Theme::palette(dark);
        const std::array pairs = {std::pair{QPalette::WindowText, QPalette::Window},
                                  std::pair{QPalette::Text, QPalette::Base},
                                  std::pair{QPalette::Text, QPalette::AlternateBase},
                                  std::pair{QPalette::ButtonText, QPalette::Button},
                                  std::pair{QPalette::HighlightedText, QPalette::Highlight},
                                  std::pair{QPalette::ToolTipText, QPalette::ToolTipBase},
                                  std::pair{QPalette::PlaceholderText, QPalette::Base},
                                  std::pair{QPalette::Link, QPalette::Base}};
        for (const auto& [ink, ground] : pairs)
            QVERIFY2(contrast(palette.color(ink), palette.color(ground)) >= 4.5,
                     qPrintable(palette.color(ink).name() + palette.color(ground).name()));

        double least = std::numeric_limits<double>::infinity();
        for (const Matrix3& vision : {k_normal, k_protan, k_deutan, k_tritan})
            for (std::size_t a = 0; a < k_series.size(); ++a)
                for (std::size_t b = a + 1; b < k_series.size(); ++b)
                    least = std::min(least, cie76(at(k_series[a]), at(k_series[b]), vision));
        QVERIFY2(least >= least_difference, qPrintable(QString::number(least)));
    }

    void ramps()
    {
        QCOMPARE(Theme::magnitude(0.0), QColor(0x00, 0x20, 0x4D));
        QCOMPARE(Theme::magnitude(1.0), QColor(0xFF, 0xEA, 0x46));
        QCOMPARE(Theme::magnitude(7.0), Theme::magnitude(1.0));
        QCOMPARE(Theme::magnitude(-1.0), Theme::magnitude(0.0));
        QCOMPARE(Theme::magnitude(std::nan("")).alpha(), 0);
        double before = -1.0;
        for (int i = 0; i <= 100; ++i) { // brighter is always more, also in grey
            const double now = luminance(Theme::magnitude(i / 100.0));
            QVERIFY(now > before);
            before = now;
        }
        QCOMPARE(Theme::signedValue(0.0, false), QColor(0xF2, 0xF2, 0xF2));
        QCOMPARE(Theme::signedValue(0.0, true), QColor(0x2B, 0x2F, 0x34));
        QCOMPARE(Theme::signedValue(-1.0, true), QColor(0x0B, 0x3C, 0x6F));
        QCOMPARE(Theme::signedValue(1.0, false), QColor(0x8C, 0x3A, 0x00));
        QCOMPARE(Theme::signedValue(std::nan(""), true).alpha(), 0);
    }

    void apply_sets_palette_style_and_tells()
    {
        Theme& theme = Theme::instance();
        QSignalSpy changed(&theme, &Theme::changed);
        theme.apply(*qApp, Theme::Choice::Dark);
        QCOMPARE(changed.count(), 1);
        QVERIFY(theme.dark());
        QCOMPARE(QApplication::palette().color(QPalette::Base), Theme::color(Token::Base, true));
        theme.apply(*qApp, Theme::Choice::Light);
        QCOMPARE(changed.count(), 2);
        QVERIFY(!theme.dark());
        QCOMPARE(QApplication::palette().color(QPalette::Window), Theme::color(Token::Window, false));
        QCOMPARE(theme.color(Token::Text), QColor(0x1B, 0x1F, 0x24));
        theme.apply(*qApp, Theme::Choice::System); // offscreen has a light desktop
        QVERIFY(!theme.dark());
        QCOMPARE(QApplication::palette().color(QPalette::Window), Theme::color(Token::Window, false));
    }

    void follows_the_desktop_only_when_asked()
    {
        Theme& theme = Theme::instance();
        theme.apply(*qApp, Theme::Choice::Dark);
        QEvent news(QEvent::ThemeChange);
        QCoreApplication::sendEvent(qApp, &news);
        QTest::qWait(20);
        QVERIFY(theme.dark());
        theme.apply(*qApp, Theme::Choice::System);
        QSignalSpy changed(&theme, &Theme::changed);
        QCoreApplication::sendEvent(qApp, &news);
        QCoreApplication::sendEvent(qApp, &news);
        QTest::qWait(20);
        QCOMPARE(changed.count(), 1); // one answer to a burst, and none to its own palette
    }

    void icons_are_tinted_and_crisp()
    {
        Theme& theme = Theme::instance();
        const QDir folder(QStringLiteral(":/icons"));
        const QStringList files = folder.entryList({QStringLiteral("*.svg")});
        QVERIFY(files.size() >= 20);
        for (const bool dark : {false, true}) {
            theme.apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
            for (const QString& file : files) {
                if (file == QLatin1String("rankscope.svg"))
                    continue;
                const QIcon icon = theme.icon(QFileInfo(file).baseName());
                QVERIFY2(!icon.isNull(), qPrintable(file));
                const QPixmap large = icon.pixmap(QSize(24, 24), 2.0);
                QCOMPARE(large.width(), 48);
                QVERIFY2(share_of(large, theme.color(Token::Text)) > 0.9, qPrintable(file));
                const QPixmap off = icon.pixmap(QSize(24, 24), 2.0, QIcon::Disabled);
                QVERIFY2(share_of(off, theme.color(Token::Text)) < 0.1, qPrintable(file));
            }
        }
        QVERIFY(theme.icon(QStringLiteral("no-such-icon")).isNull());
        QVERIFY(theme.icon(QStringLiteral("../sample/config")).isNull());
    }

    void an_icon_taken_before_follows()
    {
        Theme& theme = Theme::instance();
        theme.apply(*qApp, Theme::Choice::Light);
        const QIcon icon = theme.icon(QStringLiteral("run"));
        theme.apply(*qApp, Theme::Choice::Dark);
        QVERIFY(share_of(icon.pixmap(QSize(32, 32)), Theme::color(Token::Text, true)) > 0.9);
    }

    void a_card_is_drawn_as_one()
    {
        Theme::instance().apply(*qApp, Theme::Choice::Dark);
        QFrame card;
        card.setProperty("card", true);
        card.resize(60, 40);
        card.show();
        const QImage picture = card.grab().toImage();
        QCOMPARE(picture.pixelColor(30, 20), Theme::color(Token::Base, true));
        QCOMPARE(picture.pixelColor(30, 0), Theme::color(Token::Border, true));
    }
};

QTEST_MAIN(TestTheme)
#include "test_theme.moc"
