import pytest

from agent.registration import KnownBoard, judge
from wire.payloads import Registration
from wire.phases import ErrorKind

MAC = "52:54:00:77:00:01"
OTHER = "52:54:00:77:00:02"
BOARDS = {
    "pi": KnownBoard(frozenset({MAC})),
    "bone": KnownBoard(frozenset({OTHER})),
    "old": KnownBoard(frozenset({"52:54:00:77:00:03"}), trust_mac=True),
}
PROOF = "a" * 64


def request(**changes: object) -> Registration:
    values = {"mac": MAC, "boot_id": "b1", "board": "pi", "agent": "lab", "proof": PROOF, **changes}
    return Registration(**values)  # type: ignore[arg-type]


def good(_request: Registration, _board: str) -> str | None:
    return None


def bad(_request: Registration, board: str) -> str | None:
    return f"the proof is not that of {board}"


def test_a_board_with_its_secret_is_welcome() -> None:
    verdict = judge(request(), "lab", BOARDS, good)
    assert verdict.board == "pi"
    assert verdict.answer is not None
    assert (verdict.answer.ok, verdict.answer.boot_id, verdict.answer.board) == (True, "b1", "pi")


def test_the_other_ones_name_without_its_secret_is_refused() -> None:
    verdict = judge(request(board="bone"), "lab", BOARDS, good)
    assert verdict.answer is not None
    assert not verdict.answer.ok
    assert verdict.answer.error is not None
    assert verdict.answer.error.kind is ErrorKind.NOT_ALLOWED
    assert "is not one of board bone" in verdict.answer.error.message
    # Even with a borrowed MAC: the secret is what counts.
    verdict = judge(request(board="bone", mac=OTHER), "lab", BOARDS, bad)
    assert verdict.answer is not None
    assert not verdict.answer.ok
    assert verdict.board == "bone"


@pytest.mark.parametrize("proof", [None])
def test_no_proof_no_entry_unless_the_mac_is_trusted(proof: str | None) -> None:
    verdict = judge(request(proof=proof), "lab", BOARDS, good)
    assert verdict.answer is not None
    assert not verdict.answer.ok
    verdict = judge(request(board=None, agent=None, proof=None, mac="52:54:00:77:00:03"), "lab", BOARDS, bad)
    assert verdict.answer is not None
    assert (verdict.answer.ok, verdict.answer.board) == (True, "old")


def test_what_belongs_to_another_agent_is_left_to_it() -> None:
    assert judge(request(agent="attic"), "lab", BOARDS, good).answer is None
    assert judge(request(board="stranger", agent=None), "lab", BOARDS, good).answer is None


def test_a_stranger_is_told_what_to_write() -> None:
    verdict = judge(request(board=None, mac="52:54:00:99:00:01", proof=None), "lab", BOARDS, good)
    assert verdict.board is None
    assert verdict.answer is not None
    assert verdict.answer.error is not None
    assert verdict.answer.error.kind is ErrorKind.UNKNOWN_BOARD
    assert "52:54:00:99:00:01" in verdict.answer.error.message
