"""The page in a real browser: headless Chromium types, speaks, listens, and looks. Run by `make browser`.

The studio runs as its own command, with the embedded checkpoint. With `BARK_SCREENSHOTS=folder` it leaves the pictures of
docs/studio.md there.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

pytestmark = pytest.mark.browser

TEXT = "Good morning. The kettle is on, and the bread is nearly done."
PATIENCE = float(os.environ.get("BARK_PATIENCE", "90"))
"""Seconds until what should come counts as missing: a machine may do other things."""

SILENCE = 0.005
"""Root mean square of what counts as silence."""

_LISTEN = """
const done = arguments[1];
(async () => {
  const data = await (await fetch(document.querySelector(arguments[0] + " audio").src)).arrayBuffer();
  const audio = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(data);
  const samples = audio.getChannelData(0);
  let energy = 0;
  for (const sample of samples) energy += sample * sample;
  done({seconds: audio.duration, rms: Math.sqrt(energy / samples.length), samples: Array.from(samples.slice(0, 48000))});
})().catch((error) => done({error: String(error)}));
"""

_HEAR_LIVE = """
window.live = {rms: 0, at: 0, stages: {}};
new MutationObserver(() => {
  for (const stage of document.querySelectorAll(".stage.now span"))
    if (stage.offsetParent) window.live.stages[stage.textContent] = true;  // it can be seen
}).observe(document.body, {subtree: true, childList: true});
document.addEventListener("playing", (event) => {
  const audio = event.target;
  if (!(audio instanceof HTMLAudioElement) || !audio.closest("#live")) return;
  const context = new AudioContext();
  const meter = context.createAnalyser();
  context.createMediaStreamSource(audio.captureStream()).connect(meter);
  const samples = new Float32Array(meter.fftSize);
  const look = () => {
    meter.getFloatTimeDomainData(samples);
    window.live.rms = Math.max(window.live.rms, Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length));
    window.live.at = Math.max(window.live.at, audio.currentTime);
    if (!audio.ended) setTimeout(look, 20);
  };
  look();
  audio.addEventListener("ended", () => (window.live.at = audio.currentTime));
}, true);
"""


def quiet_size(image: Image.Image) -> bytes:
    """A picture as a PNG of few colours."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass
class Browser:
    """The studio in a browser."""

    driver: Any
    url: str
    process: subprocess.Popen[str]

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def is_visible(self, css: str) -> bool:
        return any(element.is_displayed() for element in self.driver.find_elements(By.CSS_SELECTOR, css))

    def until(self, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := holds():
                    return found
            except Exception as error:  # the page is drawn anew
                if time.monotonic() > end:
                    raise error
            if time.monotonic() > end:
                self.driver.save_screenshot(str(Path(tempfile.gettempdir(), "browser-failed.png")))
                raise AssertionError(f"it never came; a picture is in {tempfile.gettempdir()}")
            time.sleep(0.1)

    def click(self, css: str) -> None:
        element = self.until(lambda: self.one(css))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.until(lambda: (element.click(), True))

    def tab(self, name: str) -> None:
        tabs = self.driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")
        self.driver.execute_script("arguments[0].click()", next(tab for tab in tabs if tab.text.startswith(name)))

    def fill(self, css: str, text: str) -> None:
        field = self.one(f"{css} textarea, {css} input")
        field.send_keys(Keys.CONTROL, "a")  # as a person does: `clear` tells the page nothing
        field.send_keys(Keys.BACKSPACE, text)

    def choose(self, css: str, name: str) -> None:
        self.click(f"{css} input")
        options = f"{css} [role=option], .options [role=option]"
        self.until(
            lambda: next(
                one
                for one in self.driver.find_elements(By.CSS_SELECTOR, options)
                if one.text.strip(" ✓").startswith(name)
            )
        ).click()

    def source(self, css: str) -> str | None:
        return self.driver.execute_script("return document.querySelector(arguments[0] + ' audio')?.src", css)

    def speak(self) -> None:
        """Presses the button, and waits for another take than before."""
        before = self.source("#player")
        self.click("#speak")
        self.until(lambda: self.source("#player") not in (None, before))
        self.until(lambda: self.is_visible("#speak"))

    def listen(self, css: str = "#player") -> dict[str, Any]:
        """What the page's audio element plays: its length, its level, and its first two seconds."""
        self.driver.set_script_timeout(30)
        heard = self.driver.execute_async_script(_LISTEN, css)
        assert "error" not in heard, heard
        return heard

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        time.sleep(0.5)

    def shade(self, name: str) -> None:
        """Light or dark, as a system asks for it."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        time.sleep(0.5)

    def shoot(self, name: str, height: int | None = None) -> None:
        """A picture of the page for the documentation, if it is asked for: of the whole, or of its first pixels."""
        folder = os.environ.get("BARK_SCREENSHOTS")
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.driver.execute_script("window.scrollTo(0, 0); document.activeElement?.blur()")
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
        width = self.driver.execute_script("return window.innerWidth")
        before = self.driver.execute_script("return window.innerHeight")
        self.resize(width, height or self.driver.execute_script("return document.body.scrollHeight"))
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        self.resize(width, before)
        Path(folder, f"studio-{name}.png").write_bytes(quiet_size(picture))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`bark-tts studio`, and where it is open."""
    words = [sys.executable, "-m", "transformers_bark", "studio", "--port", "0"]
    environment = {
        **os.environ,
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio")),
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }
    environment.pop("OMP_NUM_THREADS", None)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "the studio is open on" in line), "")
        assert line, "it did not start"
        yield line.split()[5], process
        process.kill()


@pytest.fixture(scope="module")
def browser(command: tuple[str, subprocess.Popen[str]]) -> Iterator[Browser]:
    """Chromium on the page."""
    from selenium.webdriver.chrome.service import Service

    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.fail("Chromium is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "hide-scrollbars",
        "use-fake-ui-for-media-stream",
        "use-fake-device-for-media-stream",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    one = Browser(driver, *command)
    try:
        yield one
    finally:
        driver.quit()


@pytest.fixture
def page(browser: Browser) -> Browser:
    """The page as a new visitor sees it."""
    browser.resize(1280, 900)
    browser.shade("light")
    browser.driver.get(browser.url)
    browser.until(lambda: browser.is_visible("#text textarea") and browser.source("#sample"))
    return browser


def test_it_speaks_what_is_typed_and_the_page_plays_it(page: Browser) -> None:
    page.driver.execute_script(_HEAR_LIVE)
    page.fill("#text", TEXT)
    page.fill("#seed", "7")
    page.click("#speak")
    page.until(lambda: page.driver.execute_script("return window.live.at") > 0.3)
    page.until(lambda: page.source("#player"))
    seen = page.driver.execute_script("return Object.keys(window.live.stages)")
    assert seen and set(seen) <= {"semantic", "coarse", "fine"}, seen  # a slow browser may not draw a short stage
    heard = page.listen()
    assert 2 < heard["seconds"] < 12 and heard["rms"] > SILENCE
    page.until(lambda: page.driver.execute_script("return window.live.rms") > SILENCE)
    page.until(lambda: not page.is_visible("#live"))  # it has ended: the take's own player is left
    assert page.driver.execute_script("return window.live.at") == pytest.approx(heard["seconds"], abs=0.3)
    for picture in (".wave svg polygon", ".mel img", ".words [data-start]"):
        assert page.is_visible(f"#result {picture}"), picture
    assert "seed 7" in page.one("#facts").text
    words = page.driver.find_elements(By.CSS_SELECTOR, "#result .words [data-start]")
    assert [word.text for word in words] == TEXT.split()
    page.shoot("desktop")


def test_the_line_follows_the_speech_and_a_click_goes_there(page: Browser) -> None:
    page.fill("#text", TEXT)
    page.speak()
    page.click("#result .wave .canvas")  # its middle
    follows = "return parseFloat(document.querySelector('#result .wave .playhead').style.left)"
    assert page.until(lambda: page.driver.execute_script(follows) > 50)
    page.until(lambda: page.is_visible("#result .words .now"))


def test_another_voice_says_it_otherwise(page: Browser) -> None:
    page.click("#streamed input")
    page.fill("#text", "Good morning.")
    page.fill("#seed", "7")
    page.speak()
    first, sample = page.listen(), page.source("#sample")
    page.choose("#voice", "en_bright")
    page.until(lambda: page.source("#sample") not in (None, sample))
    assert page.listen("#sample")["rms"] > SILENCE
    page.speak()
    second = page.listen()
    assert second["rms"] > SILENCE and second["samples"] != first["samples"]
    assert "en_bright" in page.one("#facts").text
    page.choose("#voice", "en_heart")
    page.speak()
    assert page.listen()["samples"] == first["samples"]  # and the same again


def test_bad_input_is_told_beside_its_field(page: Browser) -> None:
    page.click("#speak")
    page.until(lambda: "nothing to say yet" in page.one("#text").text)
    page.fill("#text", "日本語")
    page.click("#speak")
    page.until(lambda: "日本語" in page.one("#text").text and "no character" in page.one("#text").text)
    page.fill("#text", "x" * 5000)
    page.click("#speak")
    page.until(lambda: "5,000 characters" in page.one("#text").text)
    page.fill("#text", "Good morning.")
    page.fill("#seed", "minus one")
    page.click("#speak")
    page.until(lambda: "'minus one'" in page.one("#seed").text)
    assert page.source("#player") is None
    page.fill("#seed", "")
    page.speak()
    assert "minus one" not in page.one("#seed").text


def test_a_text_stays_a_text(page: Browser) -> None:
    """What looks like a tag, a template or a command of the page is shown as it was typed."""
    text = "Good <img src=x onerror=window.hacked=1> {{value}} ${1+1} morning."
    page.fill("#text", text)
    page.speak()
    assert page.one("#result .words").text == text
    page.fill("#text", "[voice:<img src=x onerror=window.hacked=1>] Good morning.")
    page.click("#speak")
    page.until(lambda: "There is no voice" in page.one("#text").text)
    page.tab("Takes")
    page.until(lambda: text in page.one(".takes tbody").text)
    assert page.driver.execute_script("return window.hacked") is None


def test_scripts_have_a_voice_for_each_speaker(page: Browser) -> None:
    page.driver.find_elements(By.CSS_SELECTOR, "#kind label")[1].click()
    page.until(lambda: page.is_visible("#cast textarea"))
    page.fill("#text", "Anna: Hello Ben.\nBen: Hello Anna. How are you?")
    page.fill("#cast", "Anna = en_heart")
    page.click("#speak")
    page.until(lambda: "'Ben' is not in the cast" in page.one("#cast").text)
    page.fill("#cast", "Anna = en_heart\nBen = en_bright")
    page.speak()
    assert "en_heart + en_bright" in page.one("#facts").text and page.listen()["rms"] > SILENCE
    assert [one.text for one in page.driver.find_elements(By.CSS_SELECTOR, ".words .speaker")] == ["Anna", "Ben"]


def test_a_take_is_gone_on_from_kept_and_downloaded(page: Browser) -> None:
    page.fill("#text", TEXT)
    page.fill("#seed", "7")
    page.speak()
    page.click("#go_on")
    page.until(lambda: page.one("#voice input").get_attribute("value").startswith("Take 1"))
    page.fill("#text", "And now it is done.")
    page.speak()
    assert "voice Take 1" in page.one("#facts").text and page.listen()["rms"] > SILENCE
    page.click("#save button")
    page.until(lambda: page.is_visible("#voice_name"))
    page.fill("#voice_name", "mine")
    page.click("#save_voice")
    page.until(lambda: page.one("#voice input").get_attribute("value").startswith("mine"))
    page.click("#download button")
    page.click("#make_files")
    page.until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#files a[href]")) >= 2)
    read = (
        "return Promise.all([...document.querySelectorAll(arguments[0] + ' a[href]')]"
        ".map(async (a) => (await (await fetch(a.href)).text()).slice(0, 60)))"
    )
    files = page.driver.execute_script(read, "#files")
    assert any(text.startswith("RIFF") for text in files) and any(text.startswith("1\n00:00:0") for text in files)
    assert page.driver.execute_script(read, "#saved")[0].startswith("PK")
    page.click("#tokens button")
    page.until(lambda: page.is_visible("#tokens .tokens img"))
    heights = [one.size["height"] for one in page.driver.find_elements(By.CSS_SELECTOR, "#tokens .tokens img")]
    assert len(heights) == 3
    assert heights[0] >= 26 and heights[1] >= 3 * 16 and heights[2] >= 4 * 16, heights


def test_takes_are_listed_and_played_one_against_the_other(page: Browser) -> None:
    for text, seed in ((TEXT, "7"), (TEXT, "8")):
        page.fill("#text", text)
        page.fill("#seed", seed)
        page.speak()
    page.click("#tokens button")
    page.until(lambda: page.is_visible("#tokens .tokens img"))
    page.shoot("tokens")
    page.tab("Takes")
    page.until(lambda: page.is_visible("#player_a audio") and page.is_visible("#player_b audio"))
    rows = [row.text for row in page.driver.find_elements(By.CSS_SELECTOR, ".takes tbody tr")]
    assert len(rows) == 2 and " 8 " in rows[0] and " 7 " in rows[1] and all(TEXT in row for row in rows)
    assert page.listen("#player_a")["samples"] != page.listen("#player_b")["samples"]
    page.shoot("takes", 720)
    state = "return ['a', 'b'].map((id) => document.querySelector(`#player_${id} audio`)).map((a) => [a.paused, a.currentTime])"
    page.click("#play_a")
    page.until(lambda: page.driver.execute_script(state)[0][1] > 0.8)
    page.click("#play_b")
    page.until(lambda: not page.driver.execute_script(state)[1][0])
    (a_paused, _), (_, b_at) = page.driver.execute_script(state)
    assert a_paused and b_at > 0.5  # it goes on where the other was


def test_stop_really_stops(page: Browser) -> None:
    page.fill("#text", " ".join([TEXT] * 12))
    page.click("#speak")
    page.until(lambda: page.is_visible(".stage.now"))
    page.click("#stop")
    began = time.monotonic()
    page.until(lambda: page.is_visible("#speak"))
    assert time.monotonic() - began < PATIENCE / 4 and "Stopped" in page.one("#progress").text
    page.fill("#text", "Good morning.")
    page.speak()  # the model is free again
    page.tab("Takes")
    page.until(lambda: page.is_visible(".takes tbody tr"))
    assert len(page.driver.find_elements(By.CSS_SELECTOR, ".takes tbody tr")) == 1


def test_the_detector_judges_a_file_and_the_microphone(page: Browser, tmp_path: Path) -> None:
    page.fill("#text", TEXT)
    page.speak()
    data = page.driver.execute_async_script(
        "fetch(document.querySelector('#player audio').src).then((r) => r.arrayBuffer())"
        ".then((b) => arguments[0](Array.from(new Uint8Array(b))))"
    )
    (tmp_path / "take.wav").write_bytes(bytes(data))
    page.tab("Did Bark")
    page.until(lambda: page.driver.find_elements(By.CSS_SELECTOR, "#recording input[type=file]"))
    page.one("#recording input[type=file]").send_keys(str(tmp_path / "take.wav"))
    page.until(lambda: page.source("#recording"))
    page.click("#judge")
    page.until(lambda: "Bark made this" in page.one("#verdict").text)
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#probability rect")) >= 3
    page.shoot("detector")
    page.click("#recording button[aria-label=Clear], #recording button[aria-label=clear], #recording [title=Clear]")
    page.until(lambda: page.source("#recording") is None)
    page.click("#recording button[aria-label='Record audio'], #recording [data-testid=microphone-button]")
    page.click("#recording .record-button, #recording button.record")
    time.sleep(2.5)
    page.click("#recording .stop-button, #recording button.stop")
    page.until(lambda: page.source("#recording"))
    page.click("#judge")
    page.until(lambda: "did not make this" in page.one("#verdict").text)  # the beeps of Chromium's own microphone


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_it_fits_a_phone(page: Browser, shade: str) -> None:
    page.resize(390, 844)
    page.shade(shade)
    page.driver.get(page.url)
    page.until(lambda: page.is_visible("#text textarea") and page.source("#sample"))
    page.fill("#text", TEXT)
    page.fill("#seed", "7")
    page.speak()
    page.until(lambda: not page.is_visible("#live"))
    order = [page.one(css).rect["y"] for css in ("#what", "#voices", "#speak", "#result", "#sampling")]
    assert order == sorted(order)
    page.shoot(f"phone-{shade}")
    for name in ("Speak", "Takes", "Did Bark"):
        page.tab(name)
        time.sleep(0.5)
        wide = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390, f"{name}: {wide}"
    colour = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    level = sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / 3
    assert (level < 60) == (shade == "dark"), colour


def test_nothing_was_asked_of_another_host(page: Browser) -> None:
    """All that the tests before have loaded, and this one."""
    asked = []
    for entry in page.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((page.url, "data:", "blob:", "chrome:", "about:"))] == []


def test_it_ends_when_it_is_told_to(browser: Browser) -> None:
    browser.driver.get("about:blank")
    browser.process.send_signal(signal.SIGTERM)
    assert browser.process.wait(30) == 0
