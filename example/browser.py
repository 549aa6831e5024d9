"""A headless Chromium of its own: Debian's packages ``chromium`` and ``chromium-driver``."""

import os
import shutil
from pathlib import Path

from selenium import webdriver

__all__ = ["prefer", "resize", "start"]

OPTIONS = (
    "--headless=new",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
)


def start(profile: Path, width: int = 1200, height: int = 900) -> webdriver.Chrome | None:
    """A browser with an empty profile; nothing where the programs are missing."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(option)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root has no use for
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.set_page_load_timeout(60)
    return browser


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    """Have pages believe that their reader prefers a colour scheme, ``light`` or ``dark``."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def resize(browser: webdriver.Chrome, width: int | None, height: int = 900) -> None:
    """Have pages believe that their window has this width, however narrow; or its own again."""
    if width is None:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
