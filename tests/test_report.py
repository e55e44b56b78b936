"""The report: what it says, that it is self-contained and well-formed, and that odd studies do not break it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from toy_report import page, rows, source, table

from modicum.base.errors import DataError, UnknownName
from modicum.report import TIMING_COLUMNS, curve_table, write_report
from modicum.report.document import build_document
from modicum.report.drawing import PALETTE
from modicum.report.frame import build_frame
from modicum.report.text import escape_latex, escape_markdown, latex, markdown, results_csv

# What is written


def test_all_files_are_written_and_the_page_is_returned(tmp_path):
    path = write_report(source(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "results.csv", "summary.md", "summary.tex"]


def test_the_page_is_self_contained_and_well_formed(tmp_path):
    text, checked = page(rows(datasets=("trec", "subj")), tmp_path, manifest={"versions": {"modicum": "0.1"}})
    assert len(checked.ids) == len(set(checked.ids))
    assert "script" not in checked.tags and "img" not in checked.tags and "@import" not in text
    links = {value for _, attrs in checked.attributes for name, value in attrs.items() if name in ("src", "href")}
    assert {link for link in links if link and not link.startswith(("#", "data:"))} == set()
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    for link in (link for link in links if link and link.startswith("#")):
        assert link[1:] in checked.ids


def test_the_page_is_accessible(tmp_path):
    _, checked = page(rows(), tmp_path)
    assert [tag for tag in checked.tags if tag == "h1"] == ["h1"]
    images = [attrs for _, attrs in checked.attributes if attrs.get("role") == "img"]
    assert len(images) == 2 + 3 + 2 and all(attrs["aria-label"] for attrs in images)
    assert checked.tags.count("caption") == checked.tags.count("table") == 6
    assert all("scope" in attrs for tag, attrs in checked.attributes if tag == "th")


def test_figures_take_their_colours_from_the_page(tmp_path):
    text, _ = page(rows(), tmp_path)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert f"var(--fig-0, {PALETTE[0]})" in drawn
    assert re.sub(r"var\(--[\w-]+, #\w{6}\)", "", drawn).count("#") == drawn.count('href="#') + drawn.count("url(#")
    assert "DejaVu" not in drawn


def test_the_same_rows_give_the_same_bytes(tmp_path):
    made = rows()
    for name, order in (("a", made), ("b", made)):
        write_report(source(order), tmp_path / name)
    for file in ("report.html", "summary.md", "summary.tex", "results.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_importing_the_report_does_not_import_matplotlib():
    code = "import sys, modicum.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Results as CSV


def test_results_have_timing_last_floats_by_repr_and_gaps_empty():
    made = rows(seeds=1, rounds=2)
    made[0]["macro_f1"], made[0]["train_loss"] = np.float64(0.1) + 0.2, float("nan")
    table = list(csv.reader(io.StringIO(results_csv(source(made)))))
    assert tuple(table[0][-4:]) == TIMING_COLUMNS
    assert table[0][:9] == ["trial", "dataset", "backbone", "method", "strategy", "seed", "round", "labels", "macro_f1"]
    assert len(table) == 1 + len(made)
    first = next(dict(zip(table[0], line, strict=True)) for line in table if line[0] == made[0]["trial"])
    assert first["macro_f1"] == "0.30000000000000004" and first["train_loss"] == ""
    last = next(line for line in table if line[0] == made[0]["trial"] and line[6] == "1")
    assert dict(zip(table[0], last, strict=True))["score_seconds"] == ""


def test_results_do_not_show_the_order_in_which_trials_finished():
    made = rows()
    assert results_csv(source(made)) == results_csv(source(made[::-1]))


def test_examples_are_written_sorted_where_there_are_some(tmp_path):
    examples = [
        {"dataset": "trec", "seed": seed, "id": f"e{i}", "first_learned": -1, "confidence": float("nan")}
        for seed in (1, 0)
        for i in (2, 1)
    ]
    write_report(source(examples=examples), tmp_path)
    assert (tmp_path / "examples.csv").read_text(encoding="utf-8").splitlines() == [
        "dataset,seed,id,first_learned,confidence", "trec,0,e1,-1,", "trec,0,e2,-1,", "trec,1,e1,-1,", "trec,1,e2,-1,"
    ]  # fmt: skip


# What is said


def test_the_result_table_gives_means_intervals_and_the_best():
    document = build_document(source())
    found = table(document, "result")
    assert found.header[2:] == ("macro-F1 at 250 labels", "normalised AUC", "RIPL", "accuracy at 250", "seeds")
    best = [(line.group, line.head) for line in found.lines if line.items[1].mark == "best"]
    assert best == [("lora", "entropy")]
    cell = document.frame.blocks[0].cells["lora", "entropy"]
    curve = cell.values.mean(axis=0)
    area = (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2) / 3
    line = next(line for line in found.lines if (line.group, line.head) == ("lora", "entropy"))
    assert line.items[1].text == f"{area:.3f}" and re.fullmatch(r"\[0\.\d{3}, 0\.\d{3}\]", line.items[1].note)
    assert line.items[-1].text == "3"


def test_labels_to_target_and_savings_against_random():
    made = rows(methods=("lora",), strategies=("random", "entropy", "badge"), seeds=1, rounds=3)
    curves = {"random": (0.5, 0.6, 0.8), "entropy": (0.5, 0.8, 0.9), "badge": (0.5, 0.6, 0.7)}
    for row in made:
        row["macro_f1"] = curves[row["strategy"]][row["round"]]
    found = table(build_document(source(made)), "target")
    lines = {line.head: [item.text for item in line.items] for line in found.lines}
    assert lines["random"] == ["0.800", "200", "–", "1 of 1"]
    assert lines["entropy"] == ["0.800", "150", "25 %", "1 of 1"]
    assert lines["badge"] == ["0.800", "not reached", "–", "0 of 1"]


def test_tests_against_random_are_paired_and_corrected():
    document = build_document(source(rows(seeds=10, methods=("lora",))))
    lines = {line.head: line.items for line in table(document, "random").lines}
    assert lines["entropy"][1].text == "10–0–0" and lines["entropy"][2].plain == "0.0020 (0.0039)"
    assert (lines["entropy"][-1].mark, lines["badge"][-1].mark) == ("better", "worse")
    assert "lora × entropy has the highest normalised AUC" in document.sections[0].finding
    best = [
        row | {"macro_f1": row["macro_f1"] + (row["method"] == "lora") * (row["strategy"] == "random")}
        for row in rows()
    ]
    finding = build_document(source(best)).sections[0].finding
    assert finding.endswith(": with lora, no strategy has a better mean than random.")
    assert "and is better than random with the same method (+0.02" in document.sections[0].finding
    assert document.summary == "Of 2 comparisons with random, 1 came out better, 1 worse and 0 undecided."
    assert document.notes == ()


def test_few_seeds_are_undecided_with_a_warning():
    document = build_document(source(rows(seeds=5)))
    assert "5 seeds cannot reach α = 0.05: the smallest two-sided p of a paired test is 0.0625" in document.notes[0]
    assert "under Holm's correction for 7 comparisons" in document.notes[0]
    assert document.sections[0].finding.endswith("better on 5 of 5 seeds) is undecided: 5 seeds cannot reach 0.05.")


def test_seeds_that_were_enough_are_not_called_too_few():
    """Six seeds cannot reach 0.05 in two comparisons at once; here the other one, with nine, leaves them all of it."""
    options = {"methods": ("lora",), "strategies": ("random", "entropy")}
    made = rows(datasets=("trec",), seeds=9, **options) + rows(datasets=("subj",), seeds=6, **options)
    document = build_document(source(made))
    assert document.summary.startswith("Of 2 comparisons with random, 2 came out better") and document.notes == ()


def test_methods_are_compared_with_full_under_the_same_strategy():
    found = table(build_document(source(rows(methods=("lora", "full", "bitfit")))), "method")
    assert [(line.group, line.head) for line in found.lines][:2] == [("random", "lora"), ("random", "bitfit")]
    assert "against full" in found.caption
    assert "against lora" in table(build_document(source(rows(methods=("lora", "bitfit")))), "method").caption


def test_cost_is_the_mean_over_trials_of_the_sum_over_rounds():
    found = table(build_document(source()), "cost")
    assert found.header[2:] == (
        "trainable parameters", "steps", "fitting, s", "scoring, s", "selecting, s", "total, s", "peak memory, MB"
    )  # fmt: skip
    assert [item.text for item in found.lines[0].items] == ["1,000", "40", "8.00", "1.50", "1.00", "10.5", "103"]


def test_the_terminal_table_has_a_row_for_each_combination():
    header, lines = curve_table(source(rows(datasets=("trec", "subj"))))
    assert header == ["data set", "method", "strategy", "100", "150", "200", "250", "AUC"]
    assert len(lines) == 12 and lines[0][:3] == ["trec", "full", "random"] and lines[0][3] == "0.501"
    assert curve_table(source())[0][0] == "method"


def test_the_manifest_is_shown_collapsed(tmp_path):
    manifest = {"precision": "bf16", "data": {"trec": {"train": 5452, "classes": ["a", "b"]}}, "empty": {}}
    text, checked = page(rows(), tmp_path, manifest=manifest, notes=["Labels were noisy."])
    assert "details" in checked.tags and "trec.train" in text and "5452" in text and "Labels were noisy." in text
    assert ("details", {}) in checked.attributes
    assert '["a","b"]' in (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "")


# Odd studies


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"seeds": 1}, {"result", "random", "target", "method", "cost"}),
        ({"strategies": ("entropy",)}, {"result", "target", "method", "variability", "cost"}),
        ({"strategies": ("entropy", "badge"), "methods": ("lora",)}, {"result", "target", "variability", "cost"}),
        ({"strategies": ("random",), "methods": ("lora",)}, {"result", "target", "variability", "cost"}),
        ({"rounds": 1}, {"result", "random", "method", "variability", "cost"}),
    ],
)
def test_small_studies_have_the_parts_that_make_sense(options, parts, tmp_path):
    made = rows(**options)
    page(made, tmp_path)
    assert {part.key for part in build_document(source(made)).sections[0].parts} == parts


def test_one_seed_says_that_it_has_no_interval(tmp_path):
    text, _ = page(rows(seeds=1), tmp_path)
    assert "There is one seed: no interval can be drawn and no test made" in text
    assert "one seed, so no interval" in text and "one seed allows no test" in text


def test_without_random_the_headline_says_so():
    finding = build_document(source(rows(strategies=("entropy", "badge")))).sections[0].finding
    assert finding.endswith("no random baseline was run, so whether choosing pays is open.")


def test_a_method_that_was_run_with_random_alone_beats_no_strategy():
    made = [
        row for row in rows(strategies=("random", "badge")) if (row["method"], row["strategy"]) != ("lora", "badge")
    ]
    finding = build_document(source(made)).sections[0].finding
    assert finding.endswith("; lora was run with random alone.") and "lora × random has the highest" in finding


def test_unfinished_trials_are_named_and_only_common_rounds_used():
    made = [row for row in rows() if row["trial"] != "trec-lora-badge-2" or row["round"] < 2]
    block = build_frame(source(made)).blocks[0]
    assert block.labels.tolist() == [100, 150]
    assert block.warnings == (
        "1 of 18 trials have fewer rounds than the longest (unfinished, or stopped early): "
        "lora × badge, seed 2 (2 of 4 rounds).",
        "Curves, tables and tests use only the 2 of 4 numbers of labels that all trials share (100 to 150); "
        "results.csv has every round.",
    )
    assert results_csv(source(made)).count("\n") == 1 + len(made)


def test_missing_trials_leave_pairs_of_shared_seeds():
    made = [row for row in rows() if row["trial"] != "trec-lora-badge-2"]
    document = build_document(source(made))
    assert document.frame.blocks[0].warnings == ("1 of 6 combinations have fewer than 3 seeds: lora × badge (2).",)
    pairs = {(c.cell.method, c.cell.strategy): c.result.n for c in document.found if c.kind == "strategy"}
    assert pairs["lora", "badge"] == 2 and pairs["lora", "entropy"] == pairs["full", "badge"] == 3


def test_a_trial_on_a_grid_of_its_own_is_left_out():
    made = rows(seeds=2)
    for row in made:
        if row["trial"] == "trec-lora-badge-1":
            row["labels"] += 7
    block = build_frame(source(made)).blocks[0]
    assert block.labels.tolist() == [100, 150, 200, 250]
    assert block.warnings == (
        "1 of 12 trials share no number of labels with the others and are left out: lora × badge, seed 1.",
        "1 of 6 combinations have fewer than 2 seeds: lora × badge (1).",
    )


def test_a_gap_in_the_metric_costs_a_seed_its_area(tmp_path):
    made = rows()
    made[1]["macro_f1"] = None
    text, _ = page(made, tmp_path)
    assert "macro-F1 is missing in 1 round; seeds with a gap have no area." in text
    for row in made:
        if row["dataset"] == "trec":
            row["macro_f1"] = float("nan")
    made += rows(datasets=("subj",))
    text, _ = page(made, tmp_path)
    assert "On trec, no trial has a complete curve of macro-F1 yet." in text


@pytest.mark.parametrize(("metric", "best"), [("pearson", "entropy"), ("rmse", "entropy")])
def test_regression_metrics_may_be_negative_or_better_when_lower(metric, best, tmp_path):
    made = rows()
    for row in made:
        row["pearson"], row["rmse"] = row.pop("macro_f1") - 0.7, 2 - row.pop("accuracy")
    text, _ = page(made, tmp_path, metric=metric)
    document = build_document(source(made, metric=metric))
    assert f"lora × {best} has the {'highest' if metric == 'pearson' else 'lowest'}" in document.sections[0].finding
    assert ("RIPL" in text) == (metric == "pearson")
    if metric == "pearson":
        assert "−0." in text
    else:
        line = next(line for line in table(document, "random").lines if line.head == "entropy")
        assert line.items[0].text.startswith("−") and line.items[1].text == "3–0–0"


def test_a_wide_study_keeps_every_series_apart(tmp_path):
    methods, strategies = [f"m{i}" for i in range(9)], ["random", *(f"s{i}" for i in range(11))]
    text, checked = page(rows(methods, strategies, seeds=2, rounds=3), tmp_path)
    swatches = re.findall(r"<li><span aria-hidden=\"true\">(.*?)</span>", text, flags=re.S)
    plain = [re.sub(r"g\d+-", "", swatch) for swatch in swatches]
    assert len(set(plain[:12])) == 12 and len(set(plain[12:])) == 9
    assert len(checked.ids) == len(set(checked.ids))


def test_two_backbones_are_not_mixed():
    made = rows() + [row | {"backbone": "bert", "trial": row["trial"] + "b"} for row in rows()]
    assert [block.name for block in build_frame(source(made)).blocks] == ["trec · minilm", "trec · bert"]


NASTY = ("<script>alert(1)</script>", "R&D_50%", "$x^2$ #{~}\\|`*[1]\"'")


def test_nasty_names_are_only_text(tmp_path):
    made = rows(methods=NASTY[:2], strategies=("random", NASTY[2]), datasets=(NASTY[0],))
    text, checked = page(made, tmp_path, manifest={NASTY[0]: {NASTY[1]: NASTY[2]}}, notes=[NASTY[0]])
    assert "script" not in checked.tags and NASTY[0] in "".join(checked.text)
    assert NASTY[2] in "".join(checked.text)
    tex = (tmp_path / "summary.tex").read_text(encoding="utf-8")
    body = tex[tex.index("R\\&D") :]
    assert r"R\&D\_50\%" in body and NASTY[1] not in tex
    for line in (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines():
        assert not re.search(r"(?<!\\)<", line)
    for block in re.findall(r"(?:^\|.*\n)+", markdown(build_document(source(made))), flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_escapes():
    assert escape_latex("a_b & 5% of $x$ #1 {~^}\\ <>") == (
        r"a\_b \& 5\% of \$x\$ \#1 \{\textasciitilde{}\textasciicircum{}\}\textbackslash{} "
        r"\textless{}\textgreater{}"
    )
    assert escape_latex("[a] ×\n≤ −1 – α") == (
        r"{[}a{]} \ensuremath{\times} \ensuremath{\leq} \ensuremath{-}1 -- \ensuremath{\alpha}"
    )
    assert escape_markdown("macro_f1 _x_ a|b <i> 2*3 &") == r"macro_f1 \_x\_ a\|b \<i\> 2\*3 &amp;"


def test_latex_tables_are_booktabs_with_whole_rows():
    tex = latex(build_document(source()))
    assert r"\usepackage{booktabs}" in tex and tex.rstrip().endswith(r"\end{document}")
    for spec, body in re.findall(r"\\begin\{longtable\}\{(.*?)\}\n(.*?)\\end\{longtable\}", tex, flags=re.S):
        columns = len(re.sub(r"p\{.*", "p", spec))
        for row in (line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line):
            assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
    assert tex.count(r"\toprule") == 2 * tex.count(r"\begin{longtable}") == 2 * tex.count(r"\endlastfoot")


# What is refused


def test_sources_that_cannot_be_reported_are_refused():
    with pytest.raises(DataError, match="at least one finished round, got no rows; run the study first"):
        source([])
    broken = rows()
    del broken[2]["seed"], broken[2]["labels"]
    with pytest.raises(DataError, match="row 2 of the report lacks seed, labels"):
        source(broken)
    with pytest.raises(UnknownName, match=r"unknown metric 'macro_f2' \(did you mean 'macro_f1'\?\)"):
        source(metric="macro_f2")


def test_two_trials_under_one_name_are_refused():
    made = rows() + [row | {"trial": "other"} for row in rows()[:4]]
    with pytest.raises(DataError, match=r"trec-full-random-0 and other are both full × random, seed 0 on trec"):
        build_frame(source(made))
