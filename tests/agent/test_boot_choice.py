"""A board boots something else, and is back at its standing profile after it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.boot_choice import BootChoices, BootRequest, ChosenFile

SHA = "ab" * 32
KERNEL = {"url": "https://ci.example/out/vmlinuz.gz?sig=1", "sha256": SHA}
CHOSEN = BootRequest.model_validate({"board": "pi", "kernel": KERNEL, "cmdline": "console=ttyS0"})


def test_a_choice_holds_until_the_power_goes_after_the_boot_was_up():
    choices = BootChoices()
    choices.choose(CHOSEN)
    assert not choices.power_lost("pi"), "it hung on the way, and is cycled"
    assert choices.get("pi") == CHOSEN
    assert choices.registered("pi")
    assert not choices.registered("pi"), "twice is nothing new"
    assert choices.get("pi") == CHOSEN, "a reboot without power loss is still that boot"
    assert choices.power_lost("pi")
    assert choices.get("pi") is None
    assert not choices.power_lost("pi")


def test_nothing_chosen_is_the_standing_profile():
    choices = BootChoices()
    choices.choose(CHOSEN)
    choices.choose(BootRequest(board="pi"))
    assert choices.boards == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"board": "Pi"}, "board"),
        ({"board": "pi", "profile": "x", "kernel": KERNEL}, "names what to boot already"),
        ({"board": "pi", "initrd": KERNEL}, "kernel: is needed"),
        ({"board": "pi", "overlays": [KERNEL]}, "kernel: is needed"),
        ({"board": "pi", "root": "debian"}, "kernel: is needed"),
        ({"board": "pi", "profile": "x", "root": "debian"}, "names what to boot already"),
        ({"board": "pi", "kernel": KERNEL, "family": "windows"}, "family"),
        ({"board": "pi", "kernel": KERNEL, "overlays": [KERNEL] * 17}, "overlays"),
        ({"board": "pi", "cmdline": "x"}, "kernel: is needed"),
        ({"board": "pi", "kernel": {**KERNEL, "sha256": "ab"}}, "sha256"),
        ({"board": "pi", "kernel": {**KERNEL, "name": "../k"}}, "name"),
        ({"board": "pi", "kernal": KERNEL}, "kernal"),
    ],
)
def test_what_cannot_be_booted_names_the_key(data, text):
    with pytest.raises(ValidationError, match=text):
        BootRequest.model_validate(data)


@given(st.text(max_size=60))
def test_a_url_never_gives_a_path(tail):
    name = ChosenFile(url=f"https://ci.example/{tail}", sha256=SHA).file_name
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 64
    assert ChosenFile(url=KERNEL["url"], sha256=SHA).file_name == "vmlinuz.gz"


steps = st.lists(st.tuples(st.sampled_from(["choose", "back", "up", "off", "restart"]), st.sampled_from("ab")))


@given(steps)
def test_whatever_happens_a_choice_ends_only_by_power_after_up_or_by_word(told):
    choices = BootChoices()
    expected: dict[str, bool] = {}
    for what, board in told:
        if what == "choose":
            choices.choose(BootRequest(board=board, profile="other"))
            expected[board] = False
        elif what == "back":
            choices.choose(BootRequest(board=board))
            expected.pop(board, None)
        elif what == "up":
            assert choices.registered(board) == (expected.get(board) is False)
            expected.update({board: True} if board in expected else {})
        elif what == "off":
            assert choices.power_lost(board) == expected.get(board, False)
            if expected.get(board):
                del expected[board]
        else:
            choices = BootChoices(choices.state())
        assert set(choices.boards) == set(expected)


@pytest.mark.parametrize("stored", [{"pi": None}, {"pi": {"request": {"board": 1}}}, {"pi": {"registered": True}}])
def test_a_state_that_cannot_be_read_is_dropped(stored):
    assert BootChoices(stored).boards == []


def test_every_file_is_pinned_overlays_in_their_order():
    files = {"kernel": KERNEL, "overlays": [{"url": f"https://ci.example/{name}.dtbo"} for name in ("spi", "can")]}
    request = BootRequest.model_validate({"board": "pi", **files})
    assert list(request.files) == ["kernel", "overlay-0", "overlay-1"]
    pinned = request.pinned({"overlay-1": "cd" * 32, "overlay-0": "ef" * 32})
    assert [overlay.sha256 for overlay in pinned.overlays] == ["ef" * 32, "cd" * 32]
    assert pinned.kernel == request.kernel
    assert BootRequest.model_validate(pinned.model_dump(mode="json")) == pinned
