"""What a person does with the page, in real Chromium."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from wire.payloads import ErrorInfo, JobSummary, Lease, Registration, RegistrationAnswer, encode
from wire.phases import ErrorKind, JobState, Phase

MAC = "52:54:00:00:00:99"


def picture(page, name):
    """Keep a screenshot where somebody asks for it (`BOARDHAND_SCREENSHOTS=folder`)."""
    if (folder := os.environ.get("BOARDHAND_SCREENSHOTS")) is not None:
        page.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def lease(thread, board, holder, token):
    expires = datetime.now(UTC) + timedelta(minutes=5)
    said = encode(Lease(holder=holder, token=token, expires=expires))
    thread.run(thread.farm.say(thread.farm.topics.lease(board), said, retain=True))


def test_log_in_watch_a_board_boot_and_be_refused_without_a_lease(farm, page):
    thread, known, _ = farm
    page.driver.get(page.base)
    page.until("the login", lambda: page.driver.find_element(By.ID, "token")).send_keys("bh_wrong", Keys.ENTER)
    page.shows(".login [role=alert]", "this token is not known")
    page.log_in(known["alice"])
    page.shows(".grid", "visionfive")
    picture(page, "boards")
    bone = thread.farm.boards["bone"]
    for phase in (Phase.STARTING, Phase.NETBOOT, Phase.BOOTING, Phase.READY):
        thread.run(thread.farm.say_state(bone, phase))
        page.shows("a[href='#/board/bone']", phase.value)
    page.enter("a[href='#/board/bone']")
    page.shows("h2", "bone")
    lease(thread, "bone", "bob", 3)
    page.shows("dl", "bob until")
    cycles = len(thread.farm.payloads("boardhand/board/bone/power/set"))
    page.press_and_confirm("Cycle")
    page.shows("#notices", "held by bob")
    picture(page, "refused")
    assert len(thread.farm.payloads("boardhand/board/bone/power/set")) == cycles, "it was not even asked"
    lease(thread, "bone", "alice", 4)
    page.shows("dl", "alice until")
    page.press_and_confirm("Cycle")
    page.shows("#notices", "bone: power is on")
    assert b'"token":4' in thread.farm.payloads("boardhand/board/bone/power/set")[-1]
    lease_gone = thread.farm.say(thread.farm.topics.lease("bone"), b"", retain=True)
    thread.run(lease_gone)
    assert page.console_errors("401", "404", "409") == []


def test_hand_in_a_job_and_read_its_log(farm, page):
    _, known, _ = farm
    page.log_in(known["alice"])
    page.go("new-job")
    text = page.until("the text", lambda: page.driver.find_element(By.ID, "yaml"))
    text.clear()
    text.send_keys("name: hello\nsteps: [uname]\npriorty: 3\n")
    page.press("Hand in")
    page.shows("#notices", "line 3")
    text.clear()
    text.send_keys("name: hello\nboard: pi5\nsteps: [uname -a, make test]\n")
    page.press("Hand in")
    page.shows("h2", "passed")
    page.shows("pre.log", "$ make test")
    page.shows("tbody", "0")
    picture(page, "job")
    page.go("jobs")
    page.shows("tbody", "hello")
    assert page.console_errors("401", "400") == []


def test_it_works_on_a_phone_and_by_keyboard(farm, page):
    _, known, _ = farm
    page.driver.set_window_size(390, 844)
    page.log_in(known["olga"])
    page.shows(".grid", "pi4-2")
    width = page.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "nobody scrolls sideways on a phone"
    picture(page, "phone")
    page.driver.refresh()
    page.shows("#line", "Live")
    page.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the content"
    for _ in range(3):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Jobs"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.shows("h2", "Jobs")
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    page.go("agents")
    page.shows("main", "lab1")
    dark = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(18, 23, 21)"
    picture(page, "dark")


def test_a_server_that_goes_away_is_said_and_comes_back(farm, page):
    _, known, _ = farm
    page.log_in(known["olga"])
    page.driver.execute_cdp_cmd("Network.enable", {})
    blocked = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", blocked)
    page.go("energy")
    page.shows("#notices", "cannot be reached")
    free = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", free)
    page.go("boards")
    page.shows(".grid", "rock5")


def test_nothing_comes_from_elsewhere(farm, page):
    _, known, base = farm
    page.log_in(known["olga"])
    for view in ("boards", "jobs", "leases", "energy", "agents", "board/pi5"):
        page.go(view)
        page.until(view, lambda: page.driver.find_element(By.TAG_NAME, "h2"))
    loaded = page.driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert all(name.startswith(base) for name in loaded)


def test_reserve_a_board_cycle_it_and_give_it_back(farm, page):
    thread, known, _ = farm
    cubie = thread.farm.boards["cubie"]
    thread.run(thread.farm.boot(cubie))
    page.log_in(known["alice"])
    page.go("leases")
    page.shows("tbody", "Nobody holds a board.")
    page.driver.find_element(By.ID, "board").send_keys("cubie")
    page.driver.find_element(By.ID, "comment").send_keys("U-Boot")
    page.press("Reserve")
    page.shows("#notices", "cubie is yours until")
    page.shows("tbody", "alice")
    page.shows("tbody", "U-Boot")
    picture(page, "leases")
    page.go("board/cubie")
    page.shows("dl", "alice until")
    page.shows("dl", "U-Boot")
    page.press_and_confirm("Cycle")
    page.shows("#notices", "cubie: power is on")
    assert b'"token":1' in thread.farm.payloads("boardhand/board/cubie/power/set")[-1]
    page.press("2 hours from now")
    page.shows("#notices", "cubie is yours until")
    picture(page, "reserved")
    page.press("Release")
    page.shows("#notices", "cubie is given back")
    page.until("cubie is free", lambda: "alice" not in page.text("dl"))
    page.button("Reserve for 2 hours")
    # The page has it from the broker; by way of the MQTT server it may come later.
    page.until("no lease is retained", lambda: thread.farm.payloads("boardhand/board/cubie/lease")[-1] == b"")
    assert page.console_errors("401", "404") == []


def test_a_hand_on_a_button_keeps_it_while_the_board_boots(farm, page):
    thread, known, _ = farm
    rock = thread.farm.boards["rock5"]
    page.log_in(known["alice"])
    page.go("board/rock5")
    button = page.button("Reserve for 2 hours")
    page.driver.execute_script("arguments[0].focus()", button)
    for phase in (Phase.STARTING, Phase.BOOTING, Phase.READY):
        thread.run(thread.farm.say_state(rock, phase))
        page.shows("h2", phase.value)
        page.shows("dl", phase.value)
    assert page.driver.switch_to.active_element == button, "it is the same one"
    page.driver.switch_to.active_element.click()
    page.shows("dl", "alice until")
    page.press("Release")
    page.until("rock5 is free", lambda: "alice" not in page.text("dl"))


def test_the_first_job_takes_the_place_of_no_jobs(farm, page):
    thread, known, _ = farm
    page.log_in(known["alice"])
    page.go("jobs")
    page.click("select option[value=cancelled]")
    page.shows("tbody", "No jobs.")
    for name, state in (("first", JobState.CANCELLED), ("other", JobState.PASSED)):
        said = JobSummary(job=f"job-9{len(name)}{state}", name=name, state=state, submitted=datetime.now(UTC))
        thread.run(thread.farm.say(thread.farm.topics.job_state(said.job), encode(said)))
    page.shows("tbody", "first")
    assert "No jobs." not in page.text("tbody")
    assert "other" not in page.text("tbody")
    gone = JobSummary(job="job-95cancelled", name="first", state=JobState.QUEUED, submitted=datetime.now(UTC))
    thread.run(thread.farm.say(thread.farm.topics.job_state(gone.job), encode(gone)))
    page.shows("tbody", "No jobs.")


def test_a_farm_that_wakes_reads_the_leases_once_a_second(farm, page):
    thread, known, _ = farm
    page.log_in(known["alice"])
    page.go("leases")
    page.shows("tbody", "Nobody holds a board.")
    asked = "return performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/leases')).length"
    before, began = page.driver.execute_script(asked), datetime.now(UTC)
    for n in range(60):
        thread.run(thread.farm.say_state(thread.farm.boards["imx8"], Phase.READY, f"change {n}"))
    page.driver.get(f"{page.base}/#/board/imx8")
    page.shows("dl", "change 59")
    count = page.driver.execute_script(asked) - before
    assert count <= (datetime.now(UTC) - began).total_seconds() + 2


def test_a_board_that_would_join_is_shown_and_taken_off_the_list(farm, page):
    thread, known, _ = farm
    page.log_in(known["olga"])
    page.go("agents")
    page.shows("main", "No unknown board has asked.")
    said = Registration(mac=MAC, boot_id="boot-1", arch="arm64", memory_mb=4096, serial="10000000abcdef")
    error = ErrorInfo(kind=ErrorKind.UNKNOWN_BOARD, message="it names no board, and no board has its MAC")
    answer = RegistrationAnswer(ok=False, boot_id="boot-1", agent="lab1", error=error)
    thread.run(thread.farm.say(thread.farm.topics.register(), encode(said)))
    thread.run(thread.farm.say(thread.farm.topics.register_answer(MAC), encode(answer)))
    for text in (MAC, "4096 MB", "10000000abcdef", "no board has its MAC", f'macs = ["{MAC}"]', "agent lab1"):
        page.shows(".stranger", text)
    picture(page, "joining")
    page.press("Off the list")
    page.shows("main", "No unknown board has asked.")


def test_a_board_is_retired_and_taken_back(farm, page):
    _, known, _ = farm
    page.log_in(known["olga"])
    page.go("board/attic-pi")
    page.press_and_confirm("Retire")
    page.shows("#notices", "attic-pi: taken out for good")
    page.shows("main", "retired")
    picture(page, "health")
    page.press("Accept")
    page.shows("#notices", "attic-pi: trusted with work")
    page.until("Retire again", lambda: page.button("Retire"))
    assert page.console_errors("401", "404") == []
