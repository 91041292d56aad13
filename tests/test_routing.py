"""The routing table: tags, guiding tokens, prompts, and every error of theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import EXPERTS, ID, TIMES, TOKENS, WORDS, ids

from espnet_smoe.routing import GuideTable, Route, RoutingError, TagTable, check_expert_names

PROMPT = ("<sos>", "<spa>", "<asr>", "<notimestamps>")


def table(experts: Any = EXPERTS, **options: Any) -> GuideTable:
    bound = GuideTable(experts, **options)
    bound.bind(TOKENS)
    return bound


def route(*tokens: str, whole_prompt: bool = True, **options: Any) -> str:
    rows = torch.tensor([ids(*tokens)])
    return table(**options).route(rows, origin="text", whole_prompt=whole_prompt)[0]


def test_the_guiding_token_names_the_expert() -> None:
    assert route(*PROMPT, "hola") == "asr"
    assert route("<sos>", "<spa>", "<st_eng>", "<notimestamps>", "house") == "st"
    assert route("<sos>", "<spa>", "<st_deu>", "<0.00>", "house") == "st"


def test_a_batch_may_mix_routes() -> None:
    rows = torch.tensor(
        [ids("<sos>", "<spa>", task, "<notimestamps>") for task in ("<asr>", "<st_deu>", "<asr>")]
    )
    assert table().route(rows) == ("asr", "st", "asr")


@pytest.mark.parametrize("end", ["<notimestamps>", "<0.00>", "<0.50>", "hola"])
def test_nothing_after_the_prompt_is_read(end: str) -> None:
    assert route("<sos>", "<spa>", "<asr>", end, "<st_eng>", "hola", "<st_deu>") == "asr"


def test_text_prev_is_not_read() -> None:
    assert route("<sop>", "<spa>", "<st_eng>", "dog", *PROMPT, "hola") == "asr"


def test_only_the_first_sos_begins_a_prompt() -> None:
    assert route(*PROMPT, "hola", "<sos>", "<st_eng>") == "asr"


def test_padding_ends_a_prompt() -> None:
    rows = torch.tensor([[ID["<sos>"], ID["<asr>"], -1, ID["<st_eng>"]]])
    assert table().route(rows) == ("asr",)
    assert route("<sos>", "<asr>", "<eos>", "<st_eng>") == "asr"


def test_an_open_prompt_is_read_up_to_its_first_guiding_token_at_later_steps() -> None:
    tokens = ("<sos>", "<spa>", "<asr>", "<st_eng>")
    assert route(*tokens, whole_prompt=False) == "asr"
    with pytest.raises(RoutingError, match="is contradictory"):
        route(*tokens)


@settings(max_examples=200, deadline=None)
@given(
    guide=st.sampled_from(["<asr>", "<st_eng>", "<st_deu>"]),
    before=st.lists(st.sampled_from(TOKENS).filter(lambda t: t != "<sos>"), max_size=6),
    end=st.sampled_from(["<notimestamps>", *TIMES, *WORDS]),
    after=st.lists(st.sampled_from(TOKENS), max_size=8),
)
def test_no_hypothesis_and_no_previous_text_changes_the_expert(
    guide: str, before: list[str], end: str, after: list[str]
) -> None:
    expected = "asr" if guide == "<asr>" else "st"
    for whole in (True, False):
        tokens = (*before, "<sos>", "<spa>", guide, end, *after)
        assert route(*tokens, whole_prompt=whole) == expected


@settings(max_examples=100, deadline=None)
@given(after=st.lists(st.sampled_from(TOKENS), max_size=8))
def test_no_hypothesis_behind_an_open_prompt_changes_the_expert(after: list[str]) -> None:
    assert route("<sos>", "<spa>", "<asr>", *after, whole_prompt=False) == "asr"


def test_a_prompt_without_a_guiding_token_raises() -> None:
    message = (
        r"prompt <spa> has no guiding token that an expert serves \(known: <asr>, <st_\*>\); "
        r"it is row 0 of text; set decoder_conf.default_expert"
    )
    with pytest.raises(RoutingError, match=message) as error:
        route("<sos>", "<spa>", "<notimestamps>", "<asr>")
    assert error.value.row == 0
    with pytest.raises(RoutingError, match=r"prompt \(empty\) has no guiding token"):
        route("<sos>", "hola")


def test_the_error_names_the_row() -> None:
    rows = torch.tensor([ids("<sos>", "<asr>", "hola"), ids("<sos>", "hola", "<asr>")])
    with pytest.raises(RoutingError, match="row 1 of the search's prompt") as error:
        table().route(rows, origin="the search's prompt")
    assert error.value.row == 1


def test_default_expert_serves_prompts_without_a_guiding_token() -> None:
    for whole in (True, False):
        options: dict[str, Any] = {"default_expert": "st", "whole_prompt": whole}
        assert route("<sos>", "<spa>", "<notimestamps>", "<asr>", **options) == "st"
        assert route("<sos>", "hola", **options) == "st"
        assert route(*PROMPT, **options) == "asr"


def test_default_expert_serves_no_open_prompt() -> None:
    """Behind an open one, a guiding token of the hypothesis would change the expert."""
    with pytest.raises(RoutingError, match=r"prompt <spa> has no guiding token and no end"):
        route("<sos>", "<spa>", default_expert="st")


def test_a_contradictory_prompt_raises() -> None:
    message = (
        r"prompt <asr><spa><st_eng> is contradictory: '<asr>' goes to expert asr, '<st_eng>' "
        r"\(token 3\) to st; it is row 0 of text"
    )
    with pytest.raises(RoutingError, match=message):
        route("<sos>", "<asr>", "<spa>", "<st_eng>", "<notimestamps>")
    assert route("<sos>", "<st_eng>", "<st_deu>", "<notimestamps>") == "st"  # one expert


def test_a_row_without_sos_raises() -> None:
    with pytest.raises(RoutingError, match="row 0 of text holds no <sos>"):
        route("<spa>", "<asr>", "<notimestamps>")


def test_an_unbound_table_raises() -> None:
    with pytest.raises(RoutingError, match=r"call bind_tokens\(token_list\) first"):
        GuideTable(EXPERTS).route(torch.tensor([ids(*PROMPT)]))


def test_a_pattern_that_matches_no_token_raises() -> None:
    message = (
        r"decoder_conf.experts.asr: '<arr>' match no token of the token list \(its special "
        r"tokens: <spa>, <asr>, <st_eng>, <st_deu>\)"
    )
    with pytest.raises(RoutingError, match=message):
        table({"asr": ["<arr>"], "st": ["<st_*>"]})


def test_an_ambiguous_token_raises() -> None:
    message = r"token '<asr>' is ambiguous: decoder_conf.experts gives it to asr and rest; make"
    with pytest.raises(RoutingError, match=message):
        table({"asr": ["<asr>"], "rest": ["<*>"]})


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ({}, "decoder_conf.experts is empty"),
        (["asr", "st"], r"is \['asr', 'st'\]; it takes a mapping such as"),
        ({"asr": "<asr>"}, r"decoder_conf.experts.asr is '<asr>'; it takes a list"),
        ({"asr": []}, "it takes a list of token patterns"),
        ({"asr": ["asr"]}, "'asr' can match no special token"),
        ({"a.b": ["<asr>"]}, r"'a\.b' is no expert name"),
        ({1: ["<asr>"]}, "1 is no expert name"),
    ],
)
def test_a_bad_table_raises(experts: Any, message: str) -> None:
    with pytest.raises(RoutingError, match=message):
        GuideTable(experts)


def test_an_unknown_default_expert_raises() -> None:
    with pytest.raises(RoutingError, match=r"default_expert 'mt' is no expert \(known: asr, st\)"):
        GuideTable(EXPERTS, default_expert="mt")


def test_reserved_tokens_and_timestamps_are_no_guides() -> None:
    with pytest.raises(RoutingError, match="experts.times: '<0.0.>' match no token"):
        table({"times": ["<0.0?>"], "asr": ["<asr>"]})
    assert route("<sos>", "<asr>", "<0.00>", experts={"all": ["<*>"]}) == "all"


def test_a_token_list_without_sos_raises() -> None:
    with pytest.raises(RoutingError, match="the token list has no <sos>"):
        GuideTable(EXPERTS).bind([t for t in TOKENS if t != "<sos>"])


def test_any_axis_routes() -> None:
    assert route(*PROMPT, experts={"spa": ["<spa>"], "deu": ["<st_deu>"]}) == "spa"


def test_the_order_of_the_mapping_carries_no_meaning() -> None:
    one, other = table({"st": ["<st_*>"], "asr": ["<asr>"]}), table(EXPERTS)
    assert one.names == other.names == ("asr", "st")
    rows = torch.tensor([ids(*PROMPT)])
    assert one.route(rows) == other.route(rows)


def test_tags_are_names_or_positions() -> None:
    tags = TagTable(["wb", "nb"], option="encoder_conf.experts")
    assert tags.route(["nb", "wb"], origin="data") == ("nb", "wb")
    assert tags.route(torch.tensor([1, 0]), origin="data") == ("nb", "wb")
    with pytest.raises(RoutingError, match=r"tag 'NB' has no expert \(known: wb, nb\); it is row"):
        tags.route(["NB"], origin="data")


def test_expert_names_are_checked() -> None:
    assert check_expert_names(["a", "b_1"], option="o") == ("a", "b_1")
    with pytest.raises(RoutingError, match="o names a more than once"):
        check_expert_names(["a", "b", "a"], option="o")
    with pytest.raises(RoutingError, match="o: 'a b' is no expert name; accepted: letters"):
        check_expert_names(["a b"], option="o")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_a_route_groups_every_row_once_and_finds_the_way_back(names: list[str]) -> None:
    found = Route.of(names, torch.device("cpu"))
    if len(set(names)) == 1:
        assert found.groups == ((names[0], None),)
        return
    order: list[int] = []
    for name, rows in found.groups:
        assert rows is not None
        assert [names[row] for row in rows.tolist()] == [name] * len(rows)
        order += rows.tolist()
    assert sorted(order) == list(range(len(names)))
    back = torch.tensor(order) if found.inverse is None else torch.tensor(order)[found.inverse]
    assert back.tolist() == list(range(len(names)))
