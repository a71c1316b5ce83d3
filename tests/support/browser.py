"""A headless Chromium that is driven over a pipe by its debugging protocol, with the standard library alone."""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time

KEYS = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}


class Browser:
    """Throws RuntimeError for what the browser refuses, and after `patience` seconds without an answer."""

    def __init__(self, program, patience=60):
        self.patience = patience
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

        def wire():  # the protocol is spoken on 3 and 4
            os.dup2(to_read, 10)
            os.dup2(from_write, 11)
            os.dup2(10, 3)
            os.dup2(11, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--user-data-dir=" + self.profile.name, "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        self.to, self.answers, self.buffer, self.number, self.events, self.session = to_write, from_read, b"", 0, [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(domain + ".enable")

    def _read(self, until):
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], max(0, until - time.time()))[0]:
                raise RuntimeError(f"the browser does not answer within {self.patience} s")
            part = os.read(self.answers, 1 << 16)
            if not part:
                raise RuntimeError("the browser ended")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def __call__(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        until = time.time() + self.patience
        while True:
            answer = self._read(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(method + ": " + answer["error"]["message"])
                return answer["result"]
            self.events.append(answer)

    def open(self, url):
        self.events.clear()
        self("Page.navigate", url=url)
        until = time.time() + self.patience
        while not self.value(f"location.href === {json.dumps(url)} && document.readyState === 'complete'"):
            if time.time() > until:
                raise RuntimeError(f"{url} is not there within {self.patience} s")
            time.sleep(0.05)

    def value(self, script):
        """What an expression of JavaScript is."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(script + ": " + json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key, shift=False):
        parameters = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        down = dict(parameters, text="\r") if key == "Enter" else parameters
        self("Input.dispatchKeyEvent", type="keyDown", **down)
        self("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def view(self, width, dark):
        """A window of this width, light or dark, after the page has drawn itself again."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia",
             features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.value("new Promise(done => setTimeout(done, 300))")

    def picture(self, file, width, top, bottom):
        """The page from `top` to `bottom`, in pixels, as PNG."""
        clip = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
        with open(file, "wb") as out:
            out.write(base64.b64decode(
                self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]))

    def complaints(self):
        """What was written to the console, thrown or logged since the page was opened."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in kinds]

    def end(self):
        try:
            self("Browser.close")
            self.process.wait(10)
        except (RuntimeError, subprocess.TimeoutExpired, OSError):
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":
    sys.exit("browser.py is imported by the tests of pages")
