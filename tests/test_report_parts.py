"""The parts of the report that stand on more than curves: claims, seeds, time and pretraining, and the whole."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from toy_report import chapter, examples, items, page, rows, source, table, timed, trained

from modicum.analysis.claims import Claim
from modicum.report import curve_table
from modicum.report.document import build_document
from modicum.report.frame import build_frame
from modicum.report.text import latex, markdown


def claim(id_, **fields):
    given = {"text": f"Claim {id_}.", "measure": "auc", "expect": "greater"}
    return Claim(id=id_, **(given | {"of": {"method": "lora"}, "against": {"method": "full"}} | fields))


CLAIMS = (
    claim("yes", source="Doe 2020"),
    claim("no", expect="less", measure="final"),
    claim("open", of={"strategy": "entropy", "seed": 0}, against={"strategy": "random"}),
    claim("same", expect="within", margin=0.5, measure="spread"),
    claim("gone", of={"method": "prefix_50%"}),
)
PRETRAINING = [
    {"dataset": "trec", "method": "lora", "objective": "mlm", "losses": [3.25, 2.5, 2.0], "seconds": 12.34},
    {"dataset": "trec", "method": "full + mlm", "objective": "mlm", "losses": [3.0, 2.25, 1.5], "seconds": 1234.5},
    {"dataset": "subj", "method": "lora", "objective": "simcse", "losses": [0.5], "seconds": 1.0},
]


def whole(seeds=8, **options):
    """A source with all that a report can show."""
    made = list(trained(rows(seeds=seeds)))
    return source(made, claims=CLAIMS, pretraining=PRETRAINING, **options)


# Claims


def test_claims_are_counted_and_listed_with_their_verdicts():
    document = build_document(whole())
    found = chapter(document, "claims")
    assert found.lead == "Of 5 claims, 2 came out supported, 1 contradicted and 1 undecided; 1 not run."
    only = found.parts[0].table
    assert only.header == ("id", "claim", "verdict", "effect", "standardised effect", "p (Holm)", "pairs")
    marks = {line.head: line.items[1].mark for line in only.lines}
    assert marks == {
        "yes": "supported", "no": "contradicted", "open": "undecided", "same": "supported", "gone": "absent"
    }  # fmt: skip
    lines = {line.head: line.items for line in only.lines}
    assert lines["yes"][0].note == "(normalised AUC of macro-F1: greater expected; Doe 2020)"
    assert lines["same"][0].note == "(distance of macro-F1 from its median over seeds: within ±0.5 expected)"
    gains = np.array([
        np.mean([document.frame.blocks[0].cells["lora", s].auc[i] for s in ("random", "entropy", "badge")])
        - np.mean([document.frame.blocks[0].cells["full", s].auc[i] for s in ("random", "entropy", "badge")])
        for i in range(8)
    ])  # fmt: skip
    effect, standardised, p, pairs = lines["yes"][2:]
    assert effect.text == f"+{gains.mean():.3f}" and re.fullmatch(r"\[\+0\.\d{3}, \+0\.\d{3}\]", effect.note)
    assert float(standardised.text.replace("+", "")) == pytest.approx(gains.mean() / gains.std(ddof=1), rel=1e-3)
    assert (p.text, pairs.text) == ("0.0156", "8")  # twice the smallest p of eight pairs: two claims are tested
    assert [item.text for item in lines["gone"][1:]] == ["not run", "–", "–", "–", "0"]
    assert "there are: full, lora" in lines["gone"][1].note


def test_what_was_pretrained_is_compared_with_full_that_was_pretrained():
    made = rows(methods=("full", "lora"), strategies=("random",))
    plain = [row | {"plain_method": row["method"]} for row in made]
    more = [
        row | {"method": row["method"] + " + mlm", "trial": row["trial"] + "-mlm", "macro_f1": row["macro_f1"] + 0.05}
        for row in plain
    ]
    found = table(build_document(source(plain + more)), "method")
    assert found.header[:3] == ("strategy", "method", "against")
    against = {line.head: (line.items[0].text, line.items[1].text[:5]) for line in found.lines}
    assert against["lora"][0] == against["full + mlm"][0] == "full" and against["lora + mlm"][0] == "full + mlm"
    assert against["lora + mlm"][1] == against["lora"][1] and against["full + mlm"][1] == "+0.05"
    alone = table(build_document(source(plain + [row for row in more if "lora" in row["method"]])), "method")
    assert "against" not in alone.header


def test_a_part_with_other_numbers_of_labels_stands_apart():
    made = rows(methods=("full", "lora"), strategies=("random",))
    more = [
        row | {"method": row["method"] + ", long", "part": "long", "trial": row["trial"] + "-long"}
        for row in made
        if row["labels"] == 200
    ]
    blocks = build_frame(source(made + more)).blocks
    assert [(block.name, block.labels.tolist()) for block in blocks] == [
        ("trec", [100, 150, 200, 250]),
        ("trec · long", [200]),
    ]
    alike = [
        row | {"method": row["method"] + ", long", "part": "long", "trial": row["trial"] + "-long"} for row in made
    ]
    (block,) = build_frame(source(made + alike)).blocks
    assert block.methods == ("full", "lora", "full, long", "lora, long")
    begun = [row | {"unfinished": True} for row in alike if row["labels"] == 100]
    (unfinished,) = build_frame(source(made + begun)).blocks
    assert len(unfinished.cells) == 2 and unfinished.labels.tolist() == [100, 150, 200, 250]
    ended = [row | {"stopped": "predictions agreed"} for row in alike if row["labels"] == 100]
    (stopped,) = build_frame(source(made + ended)).blocks
    assert len(stopped.cells) == 4 and stopped.labels.tolist() == [100]
    short = [row for row in alike if row["labels"] == 100]
    assert [b.labels.tolist() for b in build_frame(source(made + short)).blocks] == [[100, 150, 200, 250], [100]]


def test_full_tuning_is_the_baseline_in_a_part_with_a_name():
    made = [
        row | {"plain_method": row["method"], "method": row["method"] + ", long", "part": "long"}
        for row in rows(methods=("adapter", "full(clip=2)"), strategies=("random",))
    ]
    (block,) = build_frame(source(made)).blocks
    assert block.methods == ("full(clip=2), long", "adapter, long") and block.has_full
    assert block.reference("adapter, long") == block.full == "full(clip=2), long"
    (other,) = build_frame(source(rows(methods=("full(a=1) + contrastive(b=2)", "lora")))).blocks
    assert not other.has_full


def test_unfinished_trials_are_left_out_once_others_are_finished():
    made = rows(methods=("lora",), strategies=("random", "entropy"))
    late = [row["seed"] == 2 and row["strategy"] == "entropy" for row in made]
    going = [
        row | {"unfinished": True} if is_late else row
        for row, is_late in zip(made, late, strict=True)
        if not (is_late and row["round"])
    ]
    (block,) = build_frame(source(going)).blocks
    assert block.labels.tolist() == [100, 150, 200, 250] and block.cells["lora", "entropy"].seeds == (0, 1)
    assert block.warnings[0] == "1 of 6 trials are unfinished and left out: lora × entropy, seed 2."
    (first,) = build_frame(source([row | {"unfinished": True} for row in going])).blocks
    assert first.labels.tolist() == [100] and len(first.cells["lora", "entropy"].seeds) == 3


def test_ripl_is_over_the_seeds_that_both_have():
    made = rows(methods=("lora",), strategies=("random", "entropy"), seeds=4)
    for row in made:  # by luck alone, the seeds that entropy has are the better ones
        row["macro_f1"] = 0.6 + 0.1 * row["seed"] - 0.02 * (row["strategy"] == "entropy")
    kept = [row for row in made if row["strategy"] == "random" or row["seed"] > 1]
    found = table(build_document(source(kept)), "result")
    assert items(found)["lora", "entropy"][found.header.index("RIPL") - 2] == "−0.133"  # -0.02 of a room of 0.15


def test_claims_stand_before_the_data_sets(tmp_path):
    text, checked = page(whole().rows, tmp_path, claims=CLAIMS)
    assert text.index('<h2 id="claims">Claims') < text.index('<h2 id="data-1">')
    for word, shown in (("supported", "supported"), ("contradicted", "contradicted"), ("absent", "not run")):
        assert f'<span class="verdict {word}">{shown}</span>' in text
    assert ("a", {"href": "#claims"}) in checked.attributes
    written = markdown(build_document(whole()))
    assert written.index("## Claims") < written.index("## trec")
    assert "| yes | Claim yes. (normalised AUC of macro-F1: greater expected; Doe 2020) | supported" in written
    assert chapterless(page(rows(), tmp_path)[0])


def chapterless(text):
    return not any(f'id="{key}"' in text for key in ("claims", "time", "pretraining"))


# Seeds


def test_variability_is_the_standard_deviation_at_each_level_with_the_smallest_marked():
    made = rows(strategies=("random",), rounds=2)
    values = {("full", 0): (0.1, 0.2, 0.3), ("lora", 0): (0.1, 0.1, 0.4), ("full", 1): (0.5, 0.9, 0.7)}
    values["lora", 1] = (0.60, 0.61, 0.62)
    for row in made:
        row["macro_f1"] = values[row["method"], row["round"]][row["seed"]]
    found = table(build_document(source(made)), "variability")
    assert found.header == ("strategy", "method", "100", "150", "mean")
    assert items(found) == {
        ("random", "full"): ["0.1000", "0.2000", "0.1500"],
        ("random", "lora"): ["0.1732", "0.0100", "0.0916"],
    }
    marks = [[item.mark for item in line.items] for line in found.lines]
    assert marks == [["best", "", ""], ["", "best", "best"]]


def test_variability_is_by_share_where_a_study_goes_through_the_whole_training_set():
    made = [row | {"share": row["labels"] / 250} for row in rows()]
    assert table(build_document(source(made)), "variability").header[2:] == ("40 %", "60 %", "80 %", "100 %", "mean")
    made = [row | {"share": row["labels"] / 2500} for row in rows(methods=("lora",))]
    found = table(build_document(source(made)), "variability")
    assert found.header == ("method", "strategy", "100", "150", "200", "250", "mean")
    assert sum(item.mark == "best" for line in found.lines for item in line.items) == 5


# Time


def test_trials_of_different_times_are_not_mixed():
    frame = build_frame(source(timed()))
    assert [block.name for block in frame.blocks] == ["trec · 5 s", "trec · 20 s", "trec · 60 s"]
    assert [block.seconds for block in frame.blocks] == [5.0, 20.0, 60.0]
    means = [block.cells["full", "random"].mean[0] for block in frame.blocks]
    assert means == pytest.approx([means[0], means[0] + 0.1, means[0] + 0.2])
    assert [block.name for block in build_frame(source(timed((20.0,)))).blocks] == ["trec"]
    two = timed((5.0, 20.0)) + [r | {"backbone": "bert", "trial": r["trial"] + "b"} for r in timed((5.0,))]
    assert [block.name for block in build_frame(source(two)).blocks] == [
        "trec · minilm · 5 s", "trec · minilm · 20 s", "trec · bert"
    ]  # fmt: skip
    assert curve_table(source(timed()))[1][0][0] == "trec · 5 s"


def test_quality_against_time_is_a_table_and_a_figure(tmp_path):
    made = [row for row in timed() if (row["method"], row["allowed_seconds"]) != ("lora", 20.0)]
    document = build_document(source(made))
    found = chapter(document, "time")
    assert [part.heading for part in found.parts] == ["trec"]
    only = found.parts[0].table
    assert only.header == ("strategy", "method", "5 s", "20 s", "60 s")
    lines = items(only)
    assert lines["random", "lora"][1] == "–" and len(only.lines) == 6
    full = [document.frame.blocks[i].cells["full", "random"].mean[0] for i in range(3)]
    assert lines["random", "full"] == [f"{value:.3f}" for value in full]
    best = [(line.group, line.head) for line in only.lines if line.items[1].mark == "best"]
    assert len(best) == 1 and best[0][1] == "full"
    text, _ = page(made, tmp_path)
    assert text.index('id="time"') < text.index('id="data-1"')
    drawn = text[text.index('id="time"') : text.index('id="data-1"')]
    label = re.search(r'aria-label="(random on trec: mean macro-F1 over 5 to 60 seconds of training: .*?)"', drawn)[1]
    assert f"full from {full[0]:.3f} to {full[2]:.3f}" in label
    ticks = re.findall(r"<text[^>]*>\s*(\d+)\s*</text>", drawn)
    assert ticks[:3] == ["5", "20", "60"]


def test_the_findings_sum_the_times_up():
    document = build_document(source(timed() + rows(datasets=("subj",))))
    values = [{key: cell.values.mean() for key, cell in block.cells.items()} for block in document.frame.blocks[:3]]
    best = [" × ".join(max(found, key=found.get)) for found in (values[0], values[2])]
    assert len(document.sections) == 4 and len(document.findings) == 2
    assert document.findings[0].startswith("On subj, lora × entropy has the highest normalised AUC")
    assert document.findings[1] == (
        f"On trec, the best mean macro-F1 is that of {best[0]} after 5 s ({max(values[0].values()):.3f}), "
        f"and of {best[1]} after 60 s ({max(values[2].values()):.3f})."
    )


def test_one_strategy_alone_is_not_said_to_be_beaten_by_none():
    (finding,) = build_document(source(rows(strategies=("random",)))).findings
    assert re.fullmatch(r"On trec, lora × random has the highest normalised AUC of macro-F1 \(0\.\d{3}\)\.", finding)


def test_one_time_or_none_has_no_chapter(tmp_path):
    for made in (rows(), timed((20.0,))):
        assert build_document(source(made)).chapters == ()


# Pretraining


def test_pretraining_shows_losses_and_their_curves(tmp_path):
    document = build_document(source(pretraining=PRETRAINING))
    found = chapter(document, "pretraining").parts[0].table
    assert found.header == ("data set", "pretraining", "epochs", "first loss", "last loss", "seconds")
    assert items(found) == {
        ("subj", "lora + simcse"): ["1", "0.500", "0.500", "1.00"],
        ("trec", "lora + mlm"): ["3", "3.250", "2.000", "12.3"],
        ("trec", "full + mlm"): ["3", "3.000", "1.500", "1,234"],
    }
    text, checked = page(rows(), tmp_path, pretraining=PRETRAINING)
    assert text.index('id="pretraining"') > text.index('id="data-1"')
    labels = [attrs.get("aria-label", "") for _, attrs in checked.attributes]
    assert "mlm on trec: mean loss by epoch: lora + mlm from 3.250 to 2.000; full + mlm from 3.000 to 1.500." in labels
    assert "simcse on subj: mean loss by epoch: lora + simcse from 0.500 to 0.500." in labels


# Diagnostics


def test_results_that_no_practice_could_have_are_marked(tmp_path):
    made = rows()
    for row in made:
        if row["method"] == "full":
            row["diagnostic"] = "chosen on the test set: a diagnostic"
    text, _ = page(made, tmp_path)
    said = "Chosen on the test set: a diagnostic. This concerns 9 of 18 trials"
    assert text.index("A diagnostic, not a result") < text.index(said) < text.index('class="finding"')
    assert f"> **{said}" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert f"\\textbf{{{said}" in (tmp_path / "summary.tex").read_text(encoding="utf-8")
    every = build_document(source([row | {"diagnostic": "oracle"} for row in made]))
    assert every.diagnostics[0].startswith("Oracle. This concerns all 18 trials")
    assert build_document(source()).diagnostics == ()


# The whole


def test_a_page_with_everything_is_whole(tmp_path):
    full = whole()
    text, checked = page(full.rows, tmp_path, claims=CLAIMS, pretraining=PRETRAINING)
    assert len(checked.ids) == len(set(checked.ids)) and "img" not in checked.tags and "image" not in checked.tags
    assert checked.tags.count("caption") == checked.tags.count("table") == 10
    images = [attrs for _, attrs in checked.attributes if attrs.get("role") == "img"]
    assert len(images) == 2 + 3 + 2 + 3 + 2 + 3 + 2 and all(attrs["aria-label"] for attrs in images)
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert re.sub(r"var\(--[\w-]+, #\w{6}\)", "", drawn).count("#") == drawn.count('href="#') + drawn.count("url(#")


def test_columns_on_training_are_no_metrics():
    assert source(list(trained())).metrics == ("macro_f1", "accuracy")


def nasty():
    made = list(trained(rows(seeds=3)))
    awkward = claim(
        "a_b%", text="A & B ≥ 5 % of {x} → $y$ ~ 50_000 #1", source="Jukić & Šnajder [2023]", of={"method": "no^ne"}
    )
    times = [r | {"dataset": "time_d"} for r in timed((0.5, 20.0))]
    told = {"pretraining": PRETRAINING, "notes": ["σ ≈ Δ"], "examples": list(examples())}
    return source(made + times, claims=[*CLAIMS, awkward], **told)


def test_latex_is_balanced():
    tex = latex(build_document(nasty()))
    stack = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", tex):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    braces = re.sub(r"\\[{}]", "", tex)
    assert braces.count("{") == braces.count("}")
    assert r"A \& B \ensuremath{\geq} 5 \% of \{x\} \ensuremath{\to} \$y\$" in tex and "50\\_000 \\#1" in tex
    for spec, body in re.findall(r"\\begin\{longtable\}\{([^\n]*)\}\n(.*?)\\end\{longtable\}", tex, flags=re.S):
        columns = len(re.sub(r"p\{\d+mm\}", "p", spec))
        lines = [line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line]
        assert lines and {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}


def test_latex_compiles(tmp_path):
    compiler = next((name for name in ("pdflatex", "tectonic") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is here to compile the summary")
    (tmp_path / "summary.tex").write_text(latex(build_document(nasty())), encoding="utf-8")
    # A draft embeds no fonts, which a fresh installation takes a minute to draw.
    options = ["-interaction=nonstopmode", "-halt-on-error", "-draftmode"] if compiler == "pdflatex" else []
    done = subprocess.run([compiler, *options, "summary.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-3000:]
