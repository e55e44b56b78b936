"""Claims and their verdicts, on tables small enough to be worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from toy_claims import GAINS, claim, row, two_methods, verdict

from modicum.analysis.claims import Claim, judge
from modicum.analysis.summaries import third_of_layers
from modicum.base.errors import SpecError

# Verdicts


def test_a_difference_that_every_seed_has_is_supported_or_contradicted():
    found = verdict(two_methods())
    assert (found.verdict, found.n, found.reason) == ("supported", 6, "greater, p = 0.0312 ≤ 0.05")
    assert found.result.differences == pytest.approx(GAINS)
    assert found.mean == pytest.approx(0.1) and found.corrected == pytest.approx(2 / 64)
    assert found.standardised == pytest.approx(0.1 / math.sqrt(0.001 / 5))
    assert 0.08 < found.low < 0.1 < found.high < 0.12 and found.notes == ()
    assert verdict(two_methods(), expect="less").verdict == "contradicted"
    turned = verdict(two_methods(), of={"method": "full"}, against={"method": "lora"}, expect="less")
    assert turned.verdict == "supported" and turned.mean == pytest.approx(-0.1)


def test_too_few_pairs_are_undecided_and_say_so():
    found = verdict(two_methods(GAINS[:5]))
    assert (found.verdict, found.reason) == ("undecided", "p = 0.0625 > 0.05")
    assert found.notes == (
        "5 pairs cannot reach α = 0.05: the smallest two-sided p of a paired test is 0.0625. It takes 6 pairs.",
    )
    one = verdict(two_methods(GAINS[:1]))
    assert (one.verdict, one.reason, one.n) == ("undecided", "one pair allows no test", 1)
    assert math.isnan(one.standardised) and math.isnan(one.low) and math.isnan(one.corrected)


def test_holm_counts_all_claims_that_are_tested():
    both = judge([claim(), claim(id="d", measure="final")], two_methods(), "f1")
    assert [found.corrected for found in both] == pytest.approx([4 / 64, 4 / 64])
    assert {found.verdict for found in both} == {"undecided"}
    assert "after correction" in both[0].notes[0] and "It takes 7 pairs" in both[0].notes[0]
    # agreement, and what was not run, are no tests
    others = [claim(id="w", expect="within", margin=0.2), claim(id="x", of={"method": "prefix"})]
    assert judge([claim(), *others], two_methods(), "f1")[0].corrected == pytest.approx(2 / 64)


def test_the_step_of_holm_that_a_claim_stands_at_decides_what_it_could_reach():
    # Nine pairs give p = 2/512 and are rejected first: six pairs are then alone, and could have reached 2/64.
    strong = two_methods([0.1 + i / 1000 for i in range(9)], dataset="b")
    weak = two_methods((0.1, 0.1, 0.1, 0.1, 0.1, -0.01))
    claims = [claim(of={"method": "lora", "dataset": d}, against={"method": "full", "dataset": d}) for d in "ab"]
    first, second = judge(claims, strong + weak, "f1")
    assert (first.verdict, first.notes) == ("undecided", ()) and second.verdict == "supported"


def test_agreement_rests_on_students_interval():
    rows = two_methods((0.0, 0.01, 0.02))
    half = 4.302653 * 0.01 / math.sqrt(3)
    wide = verdict(rows, expect="within", margin=0.04)
    assert (wide.low, wide.high) == pytest.approx((0.01 - half, 0.01 + half), abs=1e-7)
    assert (wide.verdict, wide.reason) == ("supported", "the 95 % interval lies within ±0.04")
    narrow = verdict(rows, expect="within", margin=0.02)
    assert (narrow.verdict, narrow.reason) == ("undecided", "the 95 % interval crosses ±0.02")
    far = verdict(two_methods((0.10, 0.11, 0.12)), expect="within", margin=0.04)
    assert (far.verdict, far.reason) == ("contradicted", "the 95 % interval lies wholly outside ±0.04")
    below = verdict(two_methods((-0.10, -0.11, -0.12)), expect="within", margin=0.04)
    assert below.verdict == "contradicted" and math.isnan(below.corrected)
    assert verdict(rows[:4], expect="within", margin=1).reason == "one pair allows no interval"


def test_differences_do_not_cancel_between_data_sets():
    rows = two_methods([0.02 + i / 1000 for i in range(-2, 3)], dataset="a")
    rows += two_methods([-0.02 + i / 1000 for i in range(-2, 3)], dataset="b")
    wide, narrow = (verdict(rows, expect="within", margin=margin) for margin in (0.03, 0.019))
    assert wide.verdict == "supported" and wide.reason == "the 95 % interval of each data set lies within ±0.03"
    half = 2.776445 * 0.001 * math.sqrt(2.5) / math.sqrt(5)
    assert wide.notes == (
        f"By data set: a +0.020 [{0.02 - half:+.3f}, {0.02 + half:+.3f}]; b -0.020 [{-0.02 - half:+.3f}, "
        f"{-0.02 + half:+.3f}].",
    )
    assert (narrow.verdict, narrow.reason) == ("undecided", "the 95 % interval crosses ±0.019 on a, b")
    # pooled, b would hide that a is outside
    far = verdict(rows, expect="within", margin=0.01)
    assert (far.verdict, far.reason) == ("contradicted", "the interval of one data set lies wholly outside ±0.01")


def test_a_difference_of_differences():
    # entropy gains 0.05, 0.06 over random with lora, and 0.02, 0.01 with full: 0.03 and 0.05 more
    gains = {("lora", 0): 0.05, ("lora", 1): 0.06, ("full", 0): 0.02, ("full", 1): 0.01}
    rows = [row(seed, 0.5, method) for method, seed in gains]
    rows += [row(seed, 0.5 + gain, method, strategy="entropy") for (method, seed), gain in gains.items()]
    found = verdict(
        rows,
        of={"method": "lora", "strategy": "entropy"},
        against={"method": "lora", "strategy": "random"},
        minus={
            "of": {"method": "full", "strategy": "entropy"},
            "against": {"method": "full", "strategy": "random"},
        },
    )
    assert found.result.differences == pytest.approx([0.03, 0.05])
    assert found.mean == pytest.approx(0.04) and found.n == 2


# Measures


def test_measures_of_a_curve():
    rows = []
    for labels, value, loss in ((100, 0.2, 3.0), (200, 0.4, None), (400, 0.6, 1.0)):
        rows += [row(0, 0.0, labels=labels, loss=0.0), row(0, value, "lora", labels, loss=loss)]
    expected = {"auc": (30 + 100) / 300, "final": 0.6, "last": 0.6, "first": 0.2, "mean": 0.4, "last:loss": 1.0}
    expected |= {"mean:loss": 2.0, "first:loss": 3.0}
    for measure, value in expected.items():
        assert verdict(rows, measure=measure).mean == pytest.approx(value), measure
    assert "no seed has a trial with all rounds, and a number in 'loss'" in verdict(rows, measure="auc:loss").reason


def test_spread_is_the_distance_from_the_median_over_seeds():
    values = {("full", 100): (0.1, 0.3, 0.2), ("full", 200): (0.5, 0.5, 0.5)}
    values |= {("lora", 100): (0.1, 0.5, 0.3), ("lora", 200): (0.4, 0.6, 0.5)}
    rows = [row(seed, v, method, labels) for (method, labels), some in values.items() for seed, v in enumerate(some)]
    found = verdict(rows, measure="spread")
    # by seed, lora is 0.2, 0.2, 0 and 0.1, 0.1, 0 from its medians, full 0.1, 0.1, 0 and nothing
    assert found.result.differences == pytest.approx([0.15 - 0.05, 0.15 - 0.05, 0.0])
    assert found.notes[-1].startswith("3 pairs cannot reach")  # a trial is one unit, however many rounds it has
    # a seed that one side lacks is left out on both
    more = verdict([*rows, row(3, 0.9, labels=100), row(3, 0.9, labels=200)], measure="spread")
    assert more.result.differences == pytest.approx([0.15 - 0.05, 0.15 - 0.05, 0.0])
    assert more.notes[0].startswith("1 of 4 pairs of data set and seed are left out")
    alone = verdict([r for r in rows if r["seed"] == 0], measure="spread")
    assert alone.verdict == "not run" and "no three seeds have a trial with all rounds" in alone.reason


def test_spread_is_averaged_over_what_a_selection_spans():
    rows = []
    for strategy, seconds, wide in (("random", 5.0, 0.2), ("random", 9.0, 0.3), ("entropy", 5.0, 0.4)):
        for seed, sign in enumerate((-1, 1, 0)):
            common = {"strategy": strategy, "allowed_seconds": seconds}
            rows += [row(seed, 0.5 + sign * wide, "lora", **common), row(seed, 0.5 + sign * 0.1, **common)]
    assert verdict(rows, measure="spread").result.differences == pytest.approx([0.3 - 0.1] * 2 + [0.0])


def test_rounds_that_go_up_and_down_together_are_no_evidence_of_their_own():
    rng = random.Random(0)
    kept = 0
    for _ in range(60):
        rows = []
        for dataset in "abc":
            for method in ("lora", "full"):
                for seed in range(5):
                    shift = rng.gauss(0, 1)
                    rows += [row(seed, shift, method, labels, dataset=dataset) for labels in (100, 200, 300, 400)]
        kept += verdict(rows, measure="spread").verdict == "undecided"
    assert kept >= 56  # level 0.05 allows 3 of 60, and the median makes it less


def test_cka_is_averaged_over_thirds_of_the_layers_without_the_embeddings():
    values = [0.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    thirds = [third_of_layers(values, third) for third in ("early", "middle", "late")]
    assert thirds == pytest.approx([0.9, 0.5, 0.1])
    assert math.isnan(third_of_layers([1.0, 1.0, 1.0], "early")) and math.isnan(third_of_layers([], "late"))
    assert third_of_layers([1.0, None, 0.5, 0.4, 0.3, 0.2, 0.1], "early") == 0.5
    rows = [row(0, 0.5, "lora", 200, cka=values), row(0, 0.5, labels=200, cka=[0.5] * 7)]
    rows += [r | {"labels": 100, "cka": [0.0] * 7} for r in rows]
    assert verdict(rows, measure="cka:early").mean == pytest.approx(0.4)
    assert "the study must ask for it" in verdict(two_methods(), measure="cka:late").reason


# Selections


def test_values_are_averaged_over_what_a_selection_spans():
    rows = [row(0, 0.5), row(0, 0.6, "lora"), row(0, 0.8, "ia3"), row(0, 0.1, "head")]
    found = verdict(rows, of={"method": ["lora", "ia3"]})
    assert found.mean == pytest.approx(0.7 - 0.5)


def test_pairs_are_of_data_set_and_seed():
    rows = [r for name in "ab" for seed in (0, 1) for r in (row(seed, 0.5, dataset=name), row(seed, 0.6, "lora"))]
    rows = list({(r["trial"]): r for r in rows}.values())  # lora on data set a alone
    found = verdict(rows)
    assert found.n == 2
    assert found.notes[0].startswith("2 of 4 pairs of data set and seed are left out")


def test_labels_and_shares_can_be_bounded():
    rows = []
    for labels, gain in ((367, 0.1), (1100, 0.2), (3668, 0.3)):
        share = labels / 3668
        rows += [row(0, 0.5, labels=labels, share=share), row(0, 0.5 + gain, "lora", labels, share=share)]

    def gain(**limits):
        of, against = {"method": "lora"} | limits, {"method": "full"} | limits
        return verdict(rows, measure="mean", of=of, against=against).mean

    assert gain(share=0.3) == pytest.approx(0.2)  # 1,100 labels are 29.99 %
    assert gain(share=[0.1, 1.0]) == pytest.approx(0.2)
    assert gain(share={"max": 0.3}) == pytest.approx(0.15)
    assert gain(labels={"min": 400, "max": 4000}) == pytest.approx(0.25)
    assert gain(round={"min": 0}) == pytest.approx(0.2)


def test_a_name_stands_for_itself_with_options():
    rows = [row(0, 0.5, "full(clip=1)", strategy="random"), row(0, 0.6, "lora(rank=4)", strategy="mc(passes=3)")]
    tuned = {"plain_method": "lora(rank=4)", "tapt": "mlm"}
    rows.append(row(0, 0.9, "lora(rank=4) + mlm", strategy="mc(passes=3)", **tuned))
    assert verdict(rows).mean == pytest.approx(0.1)
    assert verdict(rows, of={"method": "lora + mlm", "strategy": "mc"}).mean == pytest.approx(0.4)
    assert verdict(rows, of={"plain_method": "lora", "tapt": "mlm"}).mean == pytest.approx(0.4)
    assert verdict(rows, of={"plain_method": "lora", "tapt": ""}).mean == pytest.approx(0.1)
    assert verdict(rows, of={"plain_method": "lora"}).mean == pytest.approx(0.25)


def test_parts_of_a_study_are_kept_apart():
    shown = {"": "lora", "stopped": "lora, stopped"}
    rows = [
        row(seed, value + seed / 100, shown[part], plain_method="lora", part=part)
        for part, value in (("", 0.5), ("stopped", 0.7))
        for seed in range(6)
    ]
    assert verdict(rows, of={"part": "stopped"}, against={"part": ""}).mean == pytest.approx(0.2)
    assert verdict(rows, of={"part": "stopped"}, against={"plain_method": "lora"}).mean == pytest.approx(0.1)


def test_names_can_be_left_out():
    rows = [row(0, 0.5), row(0, 0.6, strategy="entropy"), row(0, 0.8, strategy="badge(k=2)")]
    found = verdict(rows, of={"strategy": {"not": "random"}}, against={"strategy": {"not": ["entropy", "badge"]}})
    assert found.mean == pytest.approx(0.7 - 0.5) and found.notes == ()
    absent = verdict(rows, of={"strategy": {"not": ["random", "entropy", "badge"]}})
    assert absent.reason == (
        "of: no finished round has strategy other than random or entropy or badge; "
        "there are: badge(k=2), entropy, random"
    )


def test_no_number_is_selected_by_an_empty_name():
    timed = [row(0, value, method, allowed_seconds=9.0) for method, value in (("full", 0.1), ("lora", 0.9))]
    rows = [row(0, 0.5), row(0, 0.6, "lora"), *timed]
    wanted = [{"method": method, "allowed_seconds": ""} for method in ("lora", "full")]
    assert verdict(rows, of=wanted[0], against=wanted[1]).mean == pytest.approx(0.1)
    wanted = [{"method": method, "allowed_seconds": [9]} for method in ("lora", "full")]
    assert verdict(rows, of=wanted[0], against=wanted[1]).mean == pytest.approx(0.8)


def test_a_trial_cut_short_is_left_out_and_so_is_a_seed_that_lacks_a_method():
    rows = [r for r in two_methods() if (r["method"], r["seed"], r["labels"]) != ("lora", 0, 200)]
    found = verdict(rows)
    assert found.n == 5 and found.result.differences == pytest.approx(GAINS[1:])
    assert found.notes[0] == (
        "1 of 6 pairs of data set and seed are left out: a trial that belongs to them is missing, unfinished or "
        "without a value."
    )
    rows += [row(seed, 0.5, "ia3", labels) for seed in range(4) for labels in (100, 200)]
    both = verdict(rows, of={"method": ["lora", "ia3"]})
    assert both.n == 3 and both.result.differences[0] == pytest.approx((0.6 + 0.09 + 0.5) / 2 - 0.6)


# What is missing or wrong


def test_claims_that_were_not_run_say_what_is_missing():
    rows = two_methods()
    absent = verdict(rows, of={"method": "prefix"})
    assert (absent.verdict, absent.n, absent.result) == ("not run", 0, None) and math.isnan(absent.mean)
    assert absent.reason == "of: no finished round has method = prefix; there are: full, lora"
    assert verdict(rows, against={"labels": {"min": 900}}).reason == (
        "against: no finished round has labels ≥ 900; there are: 100, 200"
    )
    tapt = verdict(rows, of={"method": "lora", "tapt": ["mlm", "simcse"]}, against={"strategy": "badge"})
    assert tapt.reason == (
        'of: no finished round has tapt = mlm or simcse; there are: ""; '
        "against: no finished round has strategy = badge; there are: random"
    )
    rows += [row(9, 0.5, labels=labels, strategy="badge") for labels in (100, 200)]
    assert verdict(rows, of={"method": "lora", "strategy": "badge"}).reason == (
        "of: no finished round has method = lora and strategy = badge"
    )
    assert verdict(rows, of={"strategy": "badge"}, against={"strategy": "random"}).reason == (
        "no data set and seed is on every side"
    )
    column = verdict([r | {"unforgettable": None, "forgettable": 0.1} for r in rows], measure="last:unforgettable")
    assert "no row has a number in 'unforgettable' (did you mean 'forgettable'?)" in column.reason


def test_a_value_of_a_list_that_no_row_has_is_named():
    found = verdict(two_methods(), of={"method": ["lora", "prefix"]})
    assert found.verdict == "supported" and found.notes == (
        "of: no finished round that it selects has method = prefix.",
    )


def test_trials_that_go_on_do_not_count():
    going = [r | {"unfinished": True} for r in two_methods(dataset="b") if r["labels"] == 100]
    found = verdict(two_methods() + going)
    assert found.n == 6 and found.datasets == ("a",) * 6 and found.notes == ()
    assert verdict(going).verdict == "not run"


def test_a_value_that_one_data_set_lacks_is_named_with_it():
    rows = two_methods() + two_methods(dataset="b")
    rows += [r | {"strategy": "badge", "trial": r["trial"] + "b"} for r in two_methods()]
    both = ["random", "badge"]
    found = verdict(rows, of={"method": "lora", "strategy": both}, against={"method": "full", "strategy": both})
    assert found.n == 12
    assert found.notes == tuple(
        f"{side}: no finished round that it selects on b has strategy = badge." for side in ("of", "against")
    )


def test_that_one_pretraining_serves_all_seeds_is_said():
    rows = [r | {"tapt": "mlm", "trial": r["trial"] + "+"} if r["method"] == "lora" else r for r in two_methods()]
    found = verdict(rows, of={"tapt": "mlm"}, against={"tapt": ""})
    assert found.verdict == "supported" and found.notes[-1].startswith("One pretraining serves all seeds")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": {"metod": "lora"}}, r"setting 'of': unknown column 'metod' \(did you mean 'method'\?\); valid names: "),
        ({"minus": {"of": {"x": 1}, "against": {}}}, "unknown column 'x'.*valid names: allowed_seconds, backbone"),
        ({"measure": "area"}, "setting 'measure': unknown measure 'area'.*valid names: auc, auc:COLUMN, cka:early"),
        ({"measure": "cka:upper"}, "unknown measure 'cka:upper'"),
        ({"measure": "last:"}, "unknown measure 'last:'"),
        (
            {"of": {"labels": "100"}},
            r"labels is selected by a number, a list of numbers or \{min = …, max = …\}, got '1",
        ),
        ({"of": {"labels": {"least": 1}}}, "got {'least': 1}"),
        ({"of": {"labels": {}}}, "labels is selected by a number"),
        ({"of": {"seed": True}}, "seed is selected by a number"),
        ({"of": {"method": []}}, r"method is selected by a name, a list of names or \{not = …\}, got \[\]"),
        ({"of": {"method": {"not": 3}}}, r"method is selected by a name, a list of names or \{not = …\}, got 3"),
        ({"of": {"seed": {"not": 3}}}, "seed is selected by a number"),
        ({"of": {"method": {"min": 1}}}, "method is selected by a name, a list of names"),
        ({"expect": "within"}, "setting 'margin': expect = \"within\" needs the margin"),
        ({"margin": 0.1}, "a margin belongs to expect = \"within\", and this claim expects 'greater'"),
        ({"expect": "within", "margin": 0}, "greater than 0"),
        ({"expect": "more"}, "setting 'expect'"),
        ({"effect": 1}, "unknown setting 'effect'"),
    ],
)
def test_wrong_claims_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        claim(**fields)


def test_a_claim_survives_its_canonical_form():
    given = claim(of={"method": ["lora", "ia3"], "share": {"min": 0.1}}, expect="within", margin=0.01, source="me")
    assert Claim.model_validate_json(given.canonical()) == given


def test_the_order_of_rows_and_other_claims_change_no_interval():
    rows = two_methods()
    mixed = random.Random(0).sample(rows, len(rows))
    alone, among = verdict(rows), judge([claim(id="z", measure="first"), claim()], mixed, "f1")[1]
    assert (alone.low, alone.high, alone.mean) == (among.low, among.high, among.mean)
