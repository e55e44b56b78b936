"""What claims compare, and what they tell of it: sides that are not alike, and what no number of seeds can show."""

from __future__ import annotations

import pytest
from toy_claims import row, two_methods, verdict


def test_what_one_side_lacks_is_told():
    """Adapters and LoRA on one side, adapters alone on the other: their difference is of methods, too."""
    plain = [row(s, v, m) for s in range(6) for m, v in (("adapter", 0.5), ("lora", 0.3))]
    tuned = [row(s, 0.5, "adapter + mlm", plain_method="adapter", tapt="mlm") for s in range(6)]
    wanted = {"plain_method": ["adapter", "lora"]}
    found = verdict(plain + tuned, of=wanted | {"tapt": "mlm"}, against=wanted | {"tapt": ""})
    assert found.mean == pytest.approx(0.1)
    assert found.notes[:2] == (
        "of: no finished round that it selects has plain_method = lora.",
        "On a, only against has lora.",
    )
    more = [row(0, 0.9, "lora", strategy="entropy")]
    notes = verdict(plain + more, of={"plain_method": "lora"}, against={"plain_method": "adapter"}).notes
    assert notes[0] == "On a, only of has entropy."
    fair = verdict(plain, of={"plain_method": "lora"}, against={"plain_method": "adapter"})
    assert not any("only" in note for note in fair.notes)


def test_one_pretraining_is_told_wherever_there_is_one():
    rows = [row(s, 0.5 + s / 100, f"{m} + mlm", plain_method=m, tapt="mlm") for s in range(6) for m in ("full", "lora")]
    notes = verdict(rows, of={"plain_method": "lora"}, against={"plain_method": "full"}).notes
    assert any(note.startswith("One pretraining serves all seeds") for note in notes)
    assert not verdict(two_methods(), of={"method": "lora", "tapt": ""}).notes


def test_two_seeds_have_no_spread():
    rows = [row(s, s / 10, m, dataset=d) for s in range(2) for m in ("full", "lora") for d in "abc"]
    found = verdict(rows, measure="spread")
    assert found.verdict == "not run" and "no three seeds have" in found.reason


def test_brackets_end_where_they_began():
    rows = [row(0, 0.5), row(0, 0.9, "lora(rank=4) + contrastive(weight=0.5)", plain_method="lora(rank=4)")]
    assert verdict(rows).verdict == "not run"
    assert verdict(rows, of={"method": "lora + contrastive"}).mean == pytest.approx(0.4)
