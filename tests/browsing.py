"""A real browser for tests of pages: Chromium without a window."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.waiting import eventually

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver here")
PATIENCE = 90.0  # seconds for anything to appear: the browser may share two cores with all other tests
WIDE, NARROW = (1280, 900), (390, 844)  # a desk, a phone
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(profile: Path, *more: str) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, which keeps what its pages log and ask for, until the block ends."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (*OPTIONS, *more, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


class Page:
    """The console as somebody sees it, who comes by a link that logs in."""

    def __init__(self, driver: webdriver.Chrome, link: str) -> None:
        self.driver = driver
        self.resize(*WIDE)
        self.theme("light")
        self.origin = link.partition("/login")[0]
        driver.get("about:blank")  # nothing that comes later is another page's
        for log in ("browser", "performance"):
            driver.get_log(log)
        driver.get(link)
        self.until("#top nav")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def theme(self, name: str) -> None:
        """What the machine of whoever looks prefers: light or dark."""
        wanted = {"features": [{"name": "prefers-color-scheme", "value": name}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, selector: str, text: str = "") -> Any:
        """The first element of these that is to be seen and has that text, as soon as there is one."""
        seen: list[Any] = []
        self._until(lambda: seen.append(self._found("return found", selector, text)) or seen[-1], selector, text)
        return seen[-1]

    def until_gone(self, selector: str) -> None:
        """Until there is none of these."""
        eventually(
            lambda: not self.all(selector), lambda: f"{selector} is gone; there is: {self.text()[-3000:]}", PATIENCE
        )

    def click(self, selector: str, text: str = "") -> None:
        """Clicks on that as soon as it is there: at once, for the page may put another one into its place."""
        script = "if (found && !found.disabled) { found.click(); return true }"
        self._until(lambda: self._found(script, selector, text), selector, text)

    def _found(self, then: str, selector: str, text: str) -> Any:
        find = (
            "const found = [...document.querySelectorAll(arguments[0])]"
            ".find(e => e.textContent.includes(arguments[1]) && e.checkVisibility());"
        )
        return self.driver.execute_script(find + then, selector, text)

    def _until(self, true: Callable[[], object], selector: str, text: str) -> None:
        eventually(true, lambda: f"{selector} {text!r} is to be seen; there is: {self.text()[-3000:]}", PATIENCE)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def go(self, where: str) -> None:
        self.driver.execute_script("location.hash = arguments[0]", where)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def send(self) -> None:
        """Ctrl+Enter."""
        webdriver.ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()

    def shot(self, name: str) -> None:
        """Nothing is wider than the page, at two widths. Pictures of it go to the folder CONSOLE_SHOTS."""
        for width, height in (WIDE, NARROW):
            self.resize(width, height)
            wide = "return document.documentElement.scrollWidth - innerWidth"
            assert self.driver.execute_script(wide) <= 0, f"{name} is wider than {width}"
            if folder := os.environ.get("CONSOLE_SHOTS"):
                for theme in ("light", "dark"):
                    self.theme(theme)
                    self.driver.save_screenshot(f"{folder}/{name}-{width}-{theme}.png")
                self.theme("light")
        self.resize(*WIDE)

    def check_inert(self) -> None:
        """No script but the console's own has run; nothing was asked for elsewhere, nor refused: it was never tried."""
        with pytest.raises(NoAlertPresentException):
            _ = self.driver.switch_to.alert
        assert self.driver.execute_script("return window.pwned") is None
        assert [line for line in self.driver.get_log("browser") if "Security Policy" in line["message"]] == []
        asked = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        sent = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
        assert f"{self.origin}/static/app.js" in sent
        assert [url for url in sent if not url.startswith((f"{self.origin}/", "data:", "blob:"))] == []
