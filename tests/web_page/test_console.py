"""A board's console in real Chromium: xterm.js, the broker, a whole agent, and a real shell as the board."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.web_page.shell_board import ShellBoard
from tests.web_page.test_page import lease, picture


@pytest.fixture(scope="module")
def board(farm, tmp_path_factory):
    thread, _, _ = farm
    board = ShellBoard(tmp_path_factory.mktemp("shell-board"), thread.port)
    try:
        board.start()
        yield board
    finally:
        board.close()


def screen(page):
    """What the terminal holds, line by line."""
    script = """
      const buffer = window.boardhandConsole.buffer.active, lines = [];
      for (let n = 0; n < buffer.length; n++) lines.push(buffer.getLine(n).translateToString(true));
      return lines.join("\\n");"""
    return page.driver.execute_script(script)


def shows(page, text):
    page.until(f"{text!r} in the terminal", lambda: text in screen(page))


def type_at(page, text):
    page.driver.find_element(By.CSS_SELECTOR, ".terminal textarea").send_keys(text)


def test_read_type_be_refused_and_lose_the_keyboard(farm, page, board):
    thread, known, _ = farm
    page.log_in(known["alice"])
    page.enter(f"a[href='#/console/{board.name}']")
    page.shows(".how", "Nobody types.")
    board.prints("U-Boot 2024.01 (bench)\r\n[    0.000000] Linux version 6.1.0-\xf6\r\n")
    shows(page, "U-Boot 2024.01 (bench)")
    shows(page, "Linux version 6.1.0-\xf6")
    # Somebody else holds it: she reads on, and is told why she may not type.
    lease(thread, board.name, "bob", 5)
    page.shows(".how", "bob holds the board")
    page.press("Type here")
    page.shows("#notices", f"board {board.name}: held by bob until")
    page.shows(".how", "You may not")
    picture(page, "console-refused")
    # It is hers: the agent wants the lease's token, which the broker shows it.
    lease(thread, board.name, "alice", 6)
    page.shows(".how", "You hold the board.")
    page.press("Type here")
    page.shows(".how", "You type.")
    type_at(page, "echo $((6 * 7)) wor\u00e4ld" + Keys.ENTER)
    shows(page, "\n42 wor\u00e4ld")
    assert "token" not in page.driver.page_source
    picture(page, "console")
    type_at(page, Keys.CONTROL + "]")
    active = page.driver.switch_to
    page.until("whoever has no mouse gets out", lambda: active.active_element.text == "Stop typing")
    # It passes to bob while she types.
    lease(thread, board.name, "bob", 7)
    page.shows(".how", "You may not")
    shows(page, "held by bob until")
    heard = board.heard
    type_at(page, "reboot" + Keys.ENTER)
    page.press("Type here")
    page.shows("#notices", f"board {board.name}: held by bob until")
    assert board.heard == heard, "nothing of that reached the board"
    thread.run(thread.farm.say(thread.farm.topics.lease(board.name), b"", retain=True))
    assert page.console_errors("401") == []


def test_it_goes_on_after_a_restart_of_the_agent_and_begins_with_what_was_recorded(farm, page, board):
    _, known, _ = farm
    page.log_in(known["olga"])
    board.prints("a line of before\r\n")
    page.go(f"console/{board.name}")
    page.shows(".how", "Nobody types.")
    page.until("the recording", lambda: "a line of before" in screen(page))
    shows(page, "above: recorded of this boot; below: live")
    board.stop()
    page.shows(".how", "No connection to the console")
    board.start()
    page.shows(".how", "Nobody types.")
    shows(page, "connected again")
    board.prints("a line of after\r\n")
    shows(page, "a line of after")
    page.press("Type here")
    page.shows(".how", "You type.")
    page.press("Ctrl-C")
    type_at(page, "echo by $((1 + 1))" + Keys.ENTER)
    shows(page, "\nby 2")
    page.press("Stop typing")
    page.shows(".how", "Nobody types.")
    page.until("its focus", lambda: page.driver.switch_to.active_element.text == "Type here")


def test_on_a_phone_in_the_dark_and_of_a_flood_no_more_than_it_can_show(farm, page, board):
    _, known, _ = farm
    page.driver.set_window_size(390, 844)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    page.log_in(known["olga"])
    page.go(f"console/{board.name}")
    page.shows(".how", "Nobody types.")
    page.press("Type here")
    page.shows(".how", "You type.")
    type_at(page, "seq 1 30000; echo the end of $((10 * 3000))" + Keys.ENTER)
    shows(page, "the end of 30000")
    width = page.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "nobody scrolls sideways on a phone"
    picture(page, "console-phone")
    page.go("boards")
    page.shows(".grid", "pi5")
    picture(page, "boards-phone-dark")
    assert page.console_errors("401") == []


def test_a_board_without_a_console_says_what_to_do(farm, page):
    _, known, _ = farm
    page.log_in(known["olga"])
    page.go("console/pi5")
    page.shows(".how", "board pi5 has no console: set one in [boards.pi5.console] of its agent")
    page.go("console/nemo")
    page.shows(".how", "It is over.")
    shows(page, "no agent of this farm has it")
