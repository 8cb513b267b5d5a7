// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/budget.h"

#include "core/base/random.h"

#include <QtTest>

#include <cmath>
#include <limits>

using namespace rankscope;

namespace {

/// Numbers that depend on the seed alone.
class Dice {
public:
    explicit Dice(std::uint64_t seed) : stream_(seed, "budget") {}
    double uniform() { return stream_.uniform(next_++); }
    std::size_t below(std::size_t n)
    {
        return std::min(n - 1, static_cast<std::size_t>(uniform() * static_cast<double>(n)));
    }

private:
    RandomStream stream_;
    std::uint64_t next_ = 0;
};

/// Few small layers, with equal sizes, equal errors, options of no bytes and of no error among them.
std::vector<BudgetLayer> random_layers(Dice& dice)
{
    std::vector<BudgetLayer> layers(1 + dice.below(5));
    for (BudgetLayer& layer : layers) {
        layer.weight = dice.below(4) == 0 ? 0.5 + dice.uniform() : 1.0;
        const std::size_t options = 1 + dice.below(6);
        for (std::size_t j = 0; j < options; ++j) {
            const double error = dice.below(8) == 0 ? 0.0 : std::pow(10.0, -3.0 * dice.uniform());
            layer.options.push_back({static_cast<std::uint64_t>(dice.below(30)), error});
            if (dice.below(5) == 0)
                layer.options.push_back(layer.options.back());
        }
        if (dice.below(6) == 0)
            layer.pin = dice.below(layer.options.size());
    }
    return layers;
}

/// Tries every choice. Infinite where none fits.
double least_error(const std::vector<BudgetLayer>& layers, std::uint64_t budget, std::size_t first = 0)
{
    if (first == layers.size())
        return 0.0;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < layers[first].options.size(); ++j) {
        const BudgetOption& option = layers[first].options[j];
        if ((layers[first].pin && *layers[first].pin != j) || option.bytes > budget)
            continue;
        const double rest = least_error(layers, budget - option.bytes, first + 1);
        least = std::min(least, option.error * layers[first].weight + rest);
    }
    return least;
}

/// Bytes and error of a layer that falls with its rank, for 3 numbers of bits, the way weights do.
BudgetLayer curve_layer(Dice& dice, std::size_t ranks)
{
    BudgetLayer layer;
    const double size = 4096.0 * (1.0 + static_cast<double>(dice.below(3)));
    const double scale = std::pow(10.0, -1.0 - dice.uniform());
    const double decay = 0.01 + 0.03 * dice.uniform();
    for (int bits = 2; bits <= 4; ++bits) {
        for (std::size_t r = 0; r < ranks; ++r) {
            const double error = scale * std::pow(4.0, 2 - bits) * std::exp(-decay * static_cast<double>(r))
                                 * (1.0 + 0.05 * dice.uniform());
            layer.options.push_back(
                {static_cast<std::uint64_t>(size * bits / 8.0 + size / 50.0 * static_cast<double>(r)),
                 error});
        }
    }
    return layer;
}

/// The answer adds up and respects budget and pins.
bool sound(const std::vector<BudgetLayer>& layers, std::uint64_t budget, const Allocation& allocation)
{
    if (allocation.choices.size() != layers.size())
        return false;
    std::uint64_t bytes = 0;
    double error = 0.0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const std::size_t choice = allocation.choices[i];
        if (choice >= layers[i].options.size() || (layers[i].pin && choice != *layers[i].pin))
            return false;
        bytes += layers[i].options[choice].bytes;
        error += layers[i].options[choice].error * layers[i].weight;
    }
    return bytes == allocation.bytes && bytes <= budget && std::abs(error - allocation.error) <= 1e-12 * error
           && allocation.lower_bound <= allocation.error * (1.0 + 1e-12);
}

} // namespace

class TestBudget : public QObject {
    Q_OBJECT

private slots:
    void matches_trying_everything()
    {
        int feasible = 0;
        int refused = 0;
        for (std::uint64_t seed = 0; seed < 300; ++seed) {
            Dice dice(seed);
            const auto layers = random_layers(dice);
            const std::uint64_t budget = dice.below(30 * layers.size());
            const double expected = least_error(layers, budget);
            const auto allocation = allocate(layers, budget);
            QCOMPARE(allocation.has_value(), std::isfinite(expected));
            if (!allocation) {
                QCOMPARE(allocation.error().kind, ErrorKind::Usage);
                ++refused;
                continue;
            }
            ++feasible;
            QVERIFY2(sound(layers, budget, *allocation), std::to_string(seed).c_str());
            QVERIFY(allocation->proven);
            QVERIFY2(std::abs(allocation->error - expected) <= 1e-11 * expected,
                     std::to_string(seed).c_str());
        }
        QVERIFY(feasible >= 60 && refused >= 20);
    }

    void the_least_budget_is_just_enough()
    {
        for (std::uint64_t seed = 0; seed < 50; ++seed) {
            Dice dice(seed);
            const auto layers = random_layers(dice);
            const auto least = least_bytes(layers);
            QVERIFY(least.has_value());
            const auto allocation = allocate(layers, *least);
            QVERIFY(allocation.has_value());
            QCOMPARE(allocation->bytes, *least);
            if (*least == 0)
                continue;
            const auto refused = allocate(layers, *least - 1);
            QVERIFY(!refused.has_value());
            QVERIFY(refused.error().sentence().find(std::to_string(*least) + " bytes") != std::string::npos);
        }
    }

    void a_larger_budget_is_never_worse()
    {
        Dice dice(7);
        std::vector<BudgetLayer> layers;
        for (int i = 0; i < 12; ++i)
            layers.push_back(curve_layer(dice, 9));
        double before = std::numeric_limits<double>::infinity();
        const std::uint64_t least = *least_bytes(layers);
        for (std::uint64_t budget = least; budget < 3 * least; budget += least / 40) {
            const auto allocation = allocate(layers, budget);
            QVERIFY(allocation.has_value() && allocation->proven && sound(layers, budget, *allocation));
            QVERIFY(allocation->error <= before);
            before = allocation->error;
        }
        // With room for everything each layer takes its best.
        const auto all = allocate(layers, std::uint64_t{1} << 60);
        QVERIFY(all.has_value());
        QCOMPARE(all->error, all->lower_bound);
    }

    void rounding_the_relaxation_is_close_and_never_better()
    {
        Dice dice(3);
        std::vector<BudgetLayer> layers;
        for (int i = 0; i < 40; ++i)
            layers.push_back(curve_layer(dice, 20));
        const std::uint64_t budget = *least_bytes(layers) * 3 / 2;
        AllocationOptions quick;
        quick.exact = false;
        const auto rounded = allocate(layers, budget, quick);
        const auto exact = allocate(layers, budget);
        QVERIFY(rounded.has_value() && exact.has_value() && exact->proven);
        QVERIFY(sound(layers, budget, *rounded));
        QVERIFY(exact->error <= rounded->error && exact->lower_bound <= exact->error);
        QVERIFY(rounded->error <= 1.02 * exact->lower_bound);
    }

    void too_few_states_prove_nothing()
    {
        Dice dice(5);
        std::vector<BudgetLayer> layers;
        for (int i = 0; i < 30; ++i)
            layers.push_back(curve_layer(dice, 20));
        const std::uint64_t budget = *least_bytes(layers) * 3 / 2;
        AllocationOptions few;
        few.max_states = 1;
        const auto capped = allocate(layers, budget, few);
        const auto exact = allocate(layers, budget);
        QVERIFY(capped.has_value() && exact.has_value() && exact->proven);
        QVERIFY(sound(layers, budget, *capped));
        QVERIFY(!capped->proven);
        QVERIFY(capped->error >= exact->error);
    }

    void identical_layers()
    {
        Dice dice(11);
        const BudgetLayer one = curve_layer(dice, 12);
        const std::vector<BudgetLayer> layers(60, one);
        const std::uint64_t budget = *least_bytes(layers) * 7 / 4 + 13;
        const auto allocation = allocate(layers, budget);
        QVERIFY(allocation.has_value());
        QVERIFY(sound(layers, budget, *allocation));
        QVERIFY(allocation->proven);
    }

    void coupled_layers_move_together()
    {
        for (std::uint64_t seed = 0; seed < 40; ++seed) {
            Dice dice(seed);
            std::vector<BudgetLayer> members(3);
            for (BudgetLayer& member : members) {
                member.weight = 0.5 + dice.uniform();
                for (int j = 0; j < 4; ++j)
                    member.options.push_back({static_cast<std::uint64_t>(dice.below(20)), dice.uniform()});
            }
            const auto together = couple(members);
            QVERIFY(together.has_value());
            const std::uint64_t budget = 20 + dice.below(40);
            double expected = std::numeric_limits<double>::infinity();
            for (std::size_t j = 0; j < 4; ++j) {
                std::uint64_t bytes = 0;
                double error = 0.0;
                for (const BudgetLayer& member : members) {
                    bytes += member.options[j].bytes;
                    error += member.weight * member.options[j].error;
                }
                if (bytes <= budget)
                    expected = std::min(expected, error);
            }
            const auto allocation = allocate(std::vector{*together}, budget);
            QCOMPARE(allocation.has_value(), std::isfinite(expected));
            if (allocation)
                QVERIFY(std::abs(allocation->error - expected) < 1e-12);
        }
        BudgetLayer two;
        two.options = {{1, 1.0}, {2, 0.5}};
        BudgetLayer three = two;
        three.options.push_back({3, 0.1});
        QVERIFY(!couple(std::vector{two, three}).has_value());
        QVERIFY(!couple({}).has_value());
        BudgetLayer first = two;
        first.pin = 0;
        QCOMPARE(couple(std::vector{first, two})->pin, std::optional<std::size_t>(0));
        BudgetLayer second = two;
        second.pin = 1;
        QVERIFY(!couple(std::vector{first, second}).has_value());
    }

    void nothing_to_choose()
    {
        const auto empty = allocate({}, 0);
        QVERIFY(empty.has_value());
        QVERIFY(empty->choices.empty() && empty->proven);
        QCOMPARE(empty->bytes, std::uint64_t{0});
        QCOMPARE(empty->error, 0.0);

        BudgetLayer free;
        free.options = {{0, 0.25}};
        free.weight = 0.0; // its error counts for nothing
        const auto allocation = allocate(std::vector{free, free}, 0);
        QVERIFY(allocation.has_value() && allocation->proven);
        QCOMPARE(allocation->error, 0.0);
    }

    void senseless_layers_are_refused_data()
    {
        QTest::addColumn<double>("error");
        QTest::addColumn<double>("weight");
        QTest::addColumn<quint64>("bytes");
        QTest::addColumn<int>("pin");
        QTest::newRow("negative error") << -1.0 << 1.0 << quint64{1} << -1;
        QTest::newRow("error not a number") << std::nan("") << 1.0 << quint64{1} << -1;
        QTest::newRow("infinite error") << HUGE_VAL << 1.0 << quint64{1} << -1;
        QTest::newRow("negative weight") << 1.0 << -1.0 << quint64{1} << -1;
        QTest::newRow("product overflows") << 1e300 << 1e300 << quint64{1} << -1;
        QTest::newRow("bytes overflow") << 1.0 << 1.0 << ~quint64{0} << -1;
        QTest::newRow("pin beyond") << 1.0 << 1.0 << quint64{1} << 1;
    }

    void senseless_layers_are_refused()
    {
        QFETCH(double, error);
        QFETCH(double, weight);
        QFETCH(quint64, bytes);
        QFETCH(int, pin);
        BudgetLayer layer;
        layer.options = {{bytes, error}};
        layer.weight = weight;
        if (pin >= 0)
            layer.pin = static_cast<std::size_t>(pin);
        const auto refused = allocate(std::vector{layer}, 100);
        QVERIFY(!refused.has_value());
        QCOMPARE(refused.error().kind, ErrorKind::Usage);
        QVERIFY(!refused.error().message.empty());
    }

    void a_layer_without_options_is_refused()
    {
        QVERIFY(!allocate(std::vector<BudgetLayer>(2), 100).has_value());
    }

    void it_can_be_stopped()
    {
        class Stopped : public Monitor {
            bool cancelled() const override { return true; }
        } stopped;
        Dice dice(1);
        const std::vector<BudgetLayer> layers(5, curve_layer(dice, 5));
        QVERIFY_EXCEPTION_THROWN((void)allocate(layers, *least_bytes(layers) * 2 - 1, {}, stopped),
                                 Cancelled);
    }
};

QTEST_GUILESS_MAIN(TestBudget)
#include "test_budget.moc"
