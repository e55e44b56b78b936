"""What the report says of training: forgetting, examples and layers."""

from __future__ import annotations

import math
import re

import pytest
from toy_report import AWKWARD, examples, items, page, rows, source, table, timed, trained

from modicum.report.document import build_document
from modicum.report.drawing import PALETTE
from modicum.report.figures import sheets
from modicum.report.frame import build_frame
from modicum.report.text import results_csv
from modicum.report.training import averaged
from modicum.report.training_figures import forgotten_sheets, map_sheets

# Forgetting


def test_forgotten_examples_are_means_over_seeds_with_intervals():
    document = build_document(source(list(trained())))
    found = table(document, "forgotten")
    assert found.header == ("strategy", "method", "unforgettable", "forgettable", "often forgotten", "never learned")
    assert [(line.group, line.head) for line in found.lines][:3] == [
        ("random", "full"), ("random", "lora"), ("entropy", "full")
    ]  # fmt: skip
    # 0.50, 0.51, 0.52: the interval is 0.51 ± 4.3027 * 0.01 / sqrt(3)
    first = found.lines[0].items[0]
    assert (first.text, first.note) == ("51.0 %", "[48.5 %, 53.5 %]")
    assert items(found)["random", "lora"] == ["71.0 %", "19.0 %", "5.0 %", "10.0 %"]


def test_forgotten_examples_are_drawn_as_bars_that_add_up(tmp_path):
    text, checked = page(list(trained()), tmp_path)
    labels = [
        attrs["aria-label"] for _, attrs in checked.attributes if "what training did" in attrs.get("aria-label", "")
    ]
    assert len(labels) == 3  # a panel for each strategy
    shares = [float(share) for share in re.findall(r"(\d+\.\d) %", labels[0].split(";")[0])]
    assert shares == [51.0, 19.0, 10.0, 20.0] and sum(shares) == 100
    keys = re.findall(r"</span>([a-z ]+)</li>", text)
    assert [key for key in keys if "learned" in key or "forg" in key] == [
        "unforgettable", "forgotten sometimes", "forgotten often", "never learned"
    ]  # fmt: skip


def test_one_method_has_a_bar_for_each_strategy():
    block = build_frame(source(list(trained(rows(methods=("lora",)))))).blocks[0]
    (sheet,) = forgotten_sheets(block)
    assert [panel.title for panel in sheet.panels] == ["lora"] and "badge 71.0 % unforgettable" in sheet.panels[0].label


def test_a_dash_is_not_the_least_deviation():
    made = [row for row in rows(strategies=("random", "badge")) if row["strategy"] == "badge" or row["seed"] == 0]
    found = table(build_document(source(made)), "variability")
    dashes = [item for line in found.lines for item in line.items if item.text in ("–", "nan")]
    assert dashes and not any(item.mark for item in dashes)


# Examples


def test_forgetting_events_are_counted_for_each_method_with_random():
    found = table(build_document(source(list(trained()), examples=list(examples()))), "events")
    assert found.header[1:] == ("0 events", "1 event", "2 events", "3 events", "4 or more", "never learned")
    # The first of 20 is never learned but by lora with seed 0, which never forgets it.
    assert items(found) == {
        ("", "full"): ["15.0 %", "20.0 %", "15.0 %", "15.0 %", "30.0 %", "5.0 %"],
        ("", "lora"): ["16.7 %", "20.0 %", "15.0 %", "15.0 %", "30.0 %", "3.3 %"],
    }
    assert "(strategy: random)" in found.caption


def test_labels_worth_a_second_look_are_those_of_the_lowest_confidence():
    once = next(iter(examples(1 + 1))) | {"id": "once", "confidence": 0.05, "correctness": 0.5, "first_learned": 3}
    found = table(build_document(source(examples=[*examples(), once])), "map")
    assert [line.head for line in found.lines] == [AWKWARD, "once", *(f"e{i}" for i in range(1, 9))]
    shown = items(found)
    assert shown["", AWKWARD] == ["A_[x] & B", "0.049", "0.0 %", "0.0", "in 10 of 12 runs"]
    assert shown["", "once"] == ["A_[x] & B", "0.050", "50.0 %", "0.0", "in 0 of 1 run"]
    assert shown["", "e1"] == ["C", "0.096", "5.3 %", "0.5", "in 0 of 12 runs"]  # entropy does not forget it


def test_ids_of_examples_are_literal_in_every_format(tmp_path):
    text, checked = page(rows(), tmp_path, examples=list(examples()))
    assert "b" not in checked.tags and "&lt;b&gt;&amp;&#34;|_%</th>" in text and AWKWARD in checked.text
    assert '| \\<b\\>&amp;"\\|\\_% | A\\_\\[x\\] &amp; B | 0.049 |' in (tmp_path / "summary.md").read_text("utf-8")
    escaped = r"\textless{}b\textgreater{}\&\textquotedbl{}\textbar{}\_\% & A\_{[}x{]} \& B & 0.049 &"
    assert escaped in (tmp_path / "summary.tex").read_text("utf-8")


def test_data_maps_have_a_point_for_each_example_and_at_most_1500():
    few, many = (build_frame(source(examples=list(examples(n)))).blocks[0] for n in (20, 2000))
    (sheet,) = map_sheets(few)
    assert [panel.title for panel in sheet.panels] == ["full", "lora"] and "1,500" not in sheet.caption
    paths = re.findall(r'd="((?:M[\d. ]+h0)+)"', sheet.panels[0].svg)
    assert [path.count("h0") for path in paths] == [5, 5, 5, 5]  # correctness by quarters, the best first
    heights = [float(y) for y in re.findall(r" ([\d.]+)h0", "".join(reversed(paths)))]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 20
    (sheet,) = map_sheets(many)
    assert "shows a random but fixed 1,500 of up to 2,000." in sheet.caption and sheet == map_sheets(many)[0]
    assert [panel.svg.count("h0") for panel in sheet.panels] == [1500, 1500] and len(sheet.panels[0].svg) < 50_000
    (mean,) = averaged(one for one in examples(methods=("lora",)) if one["id"] == AWKWARD)
    assert (mean.confidence, mean.variability) == pytest.approx((1 / 21 + 0.001, 0.11))


def test_examples_that_could_be_of_two_blocks_are_left_out():
    parts = build_document(source(timed(), examples=list(examples()))).sections[0].parts
    assert {"events", "map"}.isdisjoint(part.key for part in parts)


# Layers


def test_layers_are_summed_up_in_thirds_at_the_last_round():
    found = table(build_document(source(list(trained()))), "layers")
    assert found.header == ("strategy", "method", "embeddings", "early (1–2)", "middle (3–4)", "late (5–6)")
    # full: 1 - 0.13 layer + 0.001 seed, over seeds 0 to 2
    assert items(found)["random", "full"] == ["1.000", "0.806", "0.546", "0.286"]
    assert items(found)["random", "lora"] == ["1.000", "0.923", "0.819", "0.715"]
    assert "at 250 labels" in found.caption


def test_shallow_models_show_each_layer_and_gaps_are_dashes():
    made = list(trained(layers=2))
    for row in made:
        if row["method"] == "full" or row["round"] == 3:
            row["cka"] = None
    found = table(build_document(source(made)), "layers")
    assert found.header[2:] == ("embeddings", "layer 1", "layer 2") and "at 200 labels" in found.caption
    assert {line.head for line in found.lines} == {"lora"}


def test_heat_maps_have_a_tile_for_each_layer_and_number_of_labels():
    block = build_frame(source(list(trained()))).blocks[0]
    heat, gaps = sheets(block, "macro-F1", ())["layers"]
    assert [panel.title for panel in heat.panels] == ["full", "lora"]
    svg = heat.panels[0].svg
    strengths = [float(x) for x in re.findall(rf"fill: var\(--fig-0, {PALETTE[0]}\); fill-opacity: ([\d.]+)", svg)]
    assert len(strengths) == 7 * 4 and "fig-shade" not in svg and min(strengths) == 0.03 and max(strengths) <= 0.7
    assert ">0.87<" in re.sub(r"\s", "", svg)  # layer 1 of full with 100 labels, 1 - 0.1, and 0.87 with 250
    assert heat.legend[0].name == "CKA 1.00" and heat.legend[-1].name == "CKA 0.20"
    assert [panel.title for panel in gaps.panels] == ["random", "entropy", "badge"]
    assert "fill-opacity: var(--fig-shade, 0.1)" in gaps.panels[0].svg
    # lora minus full at 250 labels is (0.13 - 0.052) layer: 0.078 * 21 / 7 over all seven
    assert "lora +0.234" in gaps.panels[0].label and [entry.name for entry in gaps.legend] == ["lora"]


def test_without_full_no_difference_is_drawn():
    block = build_frame(source(list(trained(rows(methods=("lora", "bitfit")))))).blocks[0]
    assert len(sheets(block, "macro-F1", ())["layers"]) == 1


def test_cka_is_kept_in_the_results_with_gaps_as_null():
    made = list(trained())
    made[0]["cka"] = [1.0, math.nan, 0.5]
    assert '"[1.0,null,0.5]"' in results_csv(source(made))
