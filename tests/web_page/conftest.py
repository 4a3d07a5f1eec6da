"""Chromium over a whole broker with its page; boards and agents behind it speak the contract."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from daemon.mqtt_link import MqttLink
from daemon.mqtt_settings import MqttSettings
from tests.broker.live import BrokerProcess, LiveFarm, Server
from tests.broker.test_web import token_for
from tests.free_ports import free_port
from wire.payloads import ErrorInfo, Request, Response, decode, encode
from wire.phases import ErrorKind

PATIENCE_S = 60.0
OPEN = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
NAMES = ("attic-pi", "bone", "cubie", "imx8", "pi4-2", "pi5", "rock5", "visionfive")


class Answering(LiveFarm):
    """Agent lab1 answers what it is asked: that it has no such thing. Whoever does not is waited for."""

    def __init__(self, port: int, names: tuple[str, ...]) -> None:
        super().__init__(port, names)
        self.asked = MqttLink(
            MqttSettings(url=f"mqtt://127.0.0.1:{port}"),
            "lab1-asked",
            will=None,
            subscriptions=[self.topics.every_agent_request("lab1")],
            on_message=self.answer,
            on_connect=self.no_more,
        )

    async def __aenter__(self) -> "Answering":
        await super().__aenter__()
        await self.asked.start()
        await self.asked.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self.asked.stop()

    async def no_more(self) -> None:
        """It has said all of itself by its other connection."""

    def answer(self, message) -> None:
        verb = self.topics.parse_verb(message.topic, "agent/lab1")
        error = ErrorInfo(kind=ErrorKind.NOT_FOUND, message=f"agent lab1 has no {verb}")
        request = decode(Request, message.payload)
        said = encode(Response(transaction=request.transaction, ok=False, error=error))
        self.later(self.asked.publish(self.topics.agent_response("lab1", verb), said))


class FarmThread:
    """The farm double on an event loop of its own, so that a test may wait for the browser."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.farm = self.run(self._enter(port))

    async def _enter(self, port: int) -> LiveFarm:
        return await Answering(port, NAMES).__aenter__()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        self.run(self.farm.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Page:
    """One browser with its window on the page."""

    def __init__(self, driver: webdriver.Chrome, base: str) -> None:
        self.driver, self.base = driver, base

    def until(self, what: str, found: Callable[[], object]):
        waiting = WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05, ignored_exceptions=(Exception,))
        try:
            return waiting.until(lambda _driver: found(), what)
        except TimeoutException:
            shown = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"waited in vain for {what}; the page shows:\n{shown}") from None

    def text(self, css: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, css).text

    def shows(self, css: str, text: str) -> None:
        self.until(f"{text!r} in {css}", lambda: text in self.text(css))

    def button(self, label: str):
        wanted = f"//button[normalize-space()='{label}']"
        return self.until(f"button {label}", lambda: self.driver.find_element(By.XPATH, wanted))

    def press(self, label: str) -> None:
        """Click a button that news from the farm may draw anew in that very moment."""
        wanted = f"//button[normalize-space()='{label}']"

        def clicked() -> bool:
            self.driver.find_element(By.XPATH, wanted).click()
            return True

        self.until(f"button {label}", clicked)

    def click(self, css: str) -> None:
        """Click what news from the farm may draw anew in that very moment."""

        def clicked() -> bool:
            self.driver.find_element(By.CSS_SELECTOR, css).click()
            return True

        self.until(css, clicked)

    def press_and_confirm(self, label: str) -> None:
        """Click a button and say yes to the browser's question; once more where it was drawn anew under the click."""
        wanted = f"//button[normalize-space()='{label}']"

        def accepted() -> bool:
            try:
                self.driver.switch_to.alert.accept()
            except NoAlertPresentException:
                self.driver.find_element(By.XPATH, wanted).click()
                return False
            return True

        self.until(f"the question of {label}", accepted)

    def enter(self, css: str) -> None:
        """Follow a link by the keyboard; news may draw it anew in that very moment."""

        target = ""

        def followed() -> bool:
            nonlocal target
            if target and self.driver.current_url == target:
                return True
            link = self.driver.find_element(By.CSS_SELECTOR, css)
            target = link.get_attribute("href")
            link.send_keys(Keys.ENTER)  # lost where the link is drawn anew between its focus and the key
            return False

        self.until(css, followed)

    def go(self, view: str) -> None:
        self.driver.get(f"{self.base}/#/{view}")

    def log_in(self, token: str) -> None:
        self.driver.get(self.base)
        field = self.until("the token's field", lambda: self.driver.find_element(By.ID, "token"))
        field.send_keys(token)
        self.button("Log in").click()
        self.shows("#line", "Live")

    def console_errors(self, *expected: str) -> list[str]:
        """What the browser complains of, but answers with these status codes: it logs each refusal as an error."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in found if not any(f"status of {code}" in message for code in expected)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("farm")
    tokens = folder / "tokens.toml"
    known = {name: token_for(tokens, name, role) for name, role in (("alice", "user"), ("olga", "operator"))}
    server = Server(folder)
    asyncio.run(server.start())
    broker = BrokerProcess(folder, server.port, idle_s=0)
    port = free_port()
    with broker.settings.open("a") as settings:
        settings.write(f'[web]\nport = {port}\ntokens = "{tokens}"\n')
    thread = FarmThread(server.port)
    try:
        broker.start()
        yield thread, known, f"http://127.0.0.1:{port}"
    finally:
        broker.cleanup()
        thread.close()
        server.stop()


@pytest.fixture(scope="session")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # Chromium's sandbox needs user namespaces, which containers often lack; the page under test is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver", port=free_port()))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(farm, browser):
    """The browser as if it were new: starting one takes longer than most tests."""
    _, known, base = farm
    found = Page(browser, base)
    found.tokens = known
    _wait_for(base)
    browser.get("about:blank")
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", OPEN)
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1280, 900)
    browser.get_log("browser")
    return found


def _wait_for(base: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{base}/api/openapi.json", timeout=60) as answer:  # noqa: S310  # our own
                json.load(answer)
                return
        except OSError:
            threading.Event().wait(0.05)
    raise AssertionError("the page did not come up")
