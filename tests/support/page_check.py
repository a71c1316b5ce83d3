"""What tests/programs/page.sh does with Python: a model with hostile tokens, and looks at pages.
page_check.py model SOURCE TARGET | data PAGE JSON | browser PROGRAM PAGE HOSTILE"""

import base64
import json
import math
import re
import struct
import sys
from pathlib import Path

HOSTILE = ["</script><script>window.hurt=1</script>", "\u202eevil\u202c", "<!--<script>", "\0\x1b[2J", "\U0001F984\u200d\u2764\ufe0f",
           "&lt;b&gt;<b id=hurt>", "x" * 5000, "';alert(1)//", '"><img src=x onerror=window.hurt=1>']
failures = []


def check(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def byte_alphabet():
    """GPT-2's: of each byte the character that stands for it in vocab.json."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {byte: chr(byte if byte in plain else 256 + sum(b not in plain for b in range(byte))) for byte in range(256)}


def make_model(source, target):
    """A copy of a model whose last tokens are hostile; TARGET.txt is a text of them."""
    source, target = Path(source), Path(target)
    target.mkdir()
    config = json.loads((source / "config.json").read_text())
    size = config["vocab_size"]
    raw = (source / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, body = json.loads(raw[8:8 + length]), raw[8 + length:]
    parts, place = [], 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        part = body[begin:end]
        if tensor["shape"][0] == size and len(tensor["shape"]) == 2:  # embeddings
            row = len(part) // size
            part += part[60 * row:(60 + len(HOSTILE)) * row]
            tensor["shape"][0] = size + len(HOSTILE)
        tensor["data_offsets"] = [place, place + len(part)]
        place += len(part)
        parts.append(part)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))
    config["vocab_size"] = size + len(HOSTILE)
    (target / "config.json").write_text(json.dumps(config))
    alphabet = byte_alphabet()
    vocabulary = json.loads((source / "vocab.json").read_text())
    merges = {}
    for i, token in enumerate(HOSTILE):
        vocabulary["".join(alphabet[b] for b in token.encode())] = size + i
    (target / "vocab.json").write_text(json.dumps(vocabulary))
    (target / "merges.txt").write_text("".join(merges))
    (target.parent / (target.name + ".tokens")).write_text(
        " ".join(str(i) for i in [*range(size, size + len(HOSTILE)), *b"then some text"]))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


def floats(text):
    raw = base64.b64decode(text)
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def rows_of(text, count):
    """The rows that page.js decodes, by another hand: lists of (key, weight)."""
    raw, at, rows = base64.b64decode(text), 0, []

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    for _ in range(count):
        size, row, key = number(), [], -1
        largest = struct.unpack_from("<f", raw, at)[0]
        at += 4
        for _ in range(size):
            key += 1 + number()
            row.append((key, largest * (raw[at] / 255) ** 2))
            at += 1
        rows.append(row)
    assert at == len(raw)
    return rows


def near(a, b, error):
    return (a is None and b is None) or (a is not None and b is not None and abs(a - b) <= error * max(1e-9, abs(b)))


def check_data(page_file, json_file):
    """The page's figures are those of the report's JSON (--rows)."""
    page = Path(page_file).read_text()
    check(page.isascii() or re.search(r'id="data">[\x00-\x7f]*</script>', page), "the data hold other characters than ASCII")
    check(page.count("<script") == 2 and page.count("</script") == 2, "the page has other scripts than its own two")
    check(not re.search(r'(src|href)="?(https?:|//)', page), "the page loads something")
    data, report = data_of(page), json.loads(Path(json_file).read_text())
    check(len(data["heads"]) == len(report["heads"]), "other heads")
    worst = 0
    for mine, theirs in zip(data["heads"], report["heads"]):
        check(mine["place"] == [theirs["batch"], theirs["layer"], theirs["head"]], "heads stand in another order")
        for name, value in zip(data["figures"], mine["mean"]):
            if name == "half_context":
                continue
            expected = theirs["mean"]
            for part in name.split("."):
                expected = expected[part]
            check(near(value, expected, 1e-6), f"{name} is {value}, in JSON {expected}")
        for entry, expected in zip(mine["selections"], theirs["mean"]["selection"]):
            check(entry[0] == expected["n"], "other N")
            for name, value in zip(data["selection_figures"], entry[1:]):
                check(near(value, expected[name], 1e-6), f"{name} at {entry[0]} is {value}, in JSON {expected[name]}")
        curves, size = floats(mine["curves"]), len(data["queries"])
        for i, name in enumerate(data["curves"]):
            for place, query in enumerate(data["queries"]):
                expected = theirs["rows"][query]
                for part in name.split("."):
                    expected = expected[part]
                value = curves[i * size + place]
                check(math.isnan(value) if expected is None else near(value, expected, 1e-6), f"{name} of query {query} is {value}")
        rows, sum_kept = rows_of(mine["rows"], len(data["shown"])), 0
        whole = iter(mine.get("whole", []))
        logits, at, kept_rows = floats(mine["logits"]), 0, {}
        for query in data["whole"]:
            length, _ = next(whole)
            kept_rows[query] = logits[at:at + length]
            at += length
        for query, row in zip(data["shown"], rows):
            own = theirs["rows"][query]
            check(near(max(w for _, w in row), own["max_weight"], 1e-6), f"query {query}: the largest weight of the pattern is another")
            sum_kept += sum(w for _, w in row)
            if query in kept_rows:  # softmax of the logits that are kept, in numbers of Python
                z = [x / mine["temperature"] for x in kept_rows[query]]
                total = sum(map(math.exp, z))
                for key, weight in row:
                    exact = math.exp(z[key]) / total
                    # half a step of the root
                    bound = own["max_weight"] * (1 / 255 * math.sqrt(exact / own["max_weight"]) + 1 / 255 ** 2)
                    check(abs(weight - exact) <= bound, f"query {query}, key {key}: {weight}, the logits say {exact}")
                    worst = max(worst, abs(weight - exact))
        check(abs(sum_kept / len(rows) - mine["kept"][0]) < 0.01, f"kept: {sum_kept / len(rows)}, the page says {mine['kept']}")
        for entry in mine["audit"]:
            statement = data["statements"][entry[0]]
            if len(entry) > 8:
                query, verdict, upper, measured, limit, use = entry[8:]
                check((verdict == 4) == (entry[5] > 0), f"{statement[0]}: the closest row has another verdict than the worst")
                if statement[0] == "corollary3":
                    check(near(measured, theirs["rows"][query]["jacobian"]["spectral"], 1e-6), f"corollary3: query {query} has another norm")
                    if statement[1] == "published":
                        most = max(row["jacobian"]["spectral"] for row in theirs["rows"])
                        check(near(measured, most, 1e-6), f"corollary3: {measured} is not the largest norm, {most}")
    check(len(data["checks"]) > 20, "too few rows to check the browser with")
    print(f"weights of patterns differ by {worst:.2g} at most")


CONTRAST = """(() => {
const bytes = (text) => { const c = document.createElement("canvas").getContext("2d"); c.fillStyle = text; c.fillRect(0, 0, 1, 1);
    return [...c.getImageData(0, 0, 1, 1).data]; };
const light = (c) => { const [r, g, b] = c.map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const faults = [];
for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length || e.closest("script, svg, .visually-hidden")) continue;
    let ground = null;
    for (let at = e; at; at = at.parentElement) {
        const raw = getComputedStyle(at).backgroundColor, alpha = /rgba\\(.*, ([\\d.]+)\\)/.exec(raw);
        if (alpha && Number(alpha[1]) === 0) continue;
        if (alpha) { // over the paper
            const paper = bytes(getComputedStyle(document.body).backgroundColor), c = raw.match(/[\\d.]+/g).map(Number);
            ground = [0, 1, 2].map((i) => c[i] * c[3] + paper[i] * (1 - c[3]));
        } else ground = bytes(raw).slice(0, 3);
        break;
    }
    ground = ground || [255, 255, 255];
    const a = light(bytes(getComputedStyle(e).color).slice(0, 3)), b = light(ground);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faults.push(e.tagName + " " + e.textContent.trim().slice(0, 30) + " " + ratio.toFixed(2));
}
return faults;
})()"""


def check_looks(browser):
    """The page that is open: its width and contrast, on a screen and on a phone, and that it complained of nothing."""
    for width, dark in ((1200, False), (400, True), (400, False)):
        browser.view(width, dark)
        wide = browser.value("document.documentElement.scrollWidth")
        check(wide <= width, f"at {width} pixels the page is {wide} wide")
        faults = browser.value(CONTRAST)
        check(not faults, f"contrast below 4.5, {'dark' if dark else 'light'}: {faults[:5]}")
    check(not browser.complaints(), f"the console: {browser.complaints()[:1]}")


def check_browser(program, page, hostile):
    sys.path.insert(0, str(Path(__file__).parent))
    from browser import Browser
    browser = Browser(program)
    try:
        browser.open(Path(page).resolve().as_uri() + "#selftest")
        text = browser.value("document.getElementById('selftest').textContent")
        figures, largest = re.match(r"figures (\d+)\nlargest (\S+)\n", text).groups()
        check(int(figures) >= 100, f"the browser checked {figures} figures only")
        check(float(largest) < 1e-6, f"the browser's figures differ by {largest}")
        print(f"{figures} figures of the browser differ from the library's by {float(largest):.2g} at most")

        # The keyboard alone: map, head, query, what-if, audit.
        active = "document.activeElement.id || document.activeElement.dataset.head || document.activeElement.tagName"

        def tab_to(wanted, most=60):
            for _ in range(most):
                if browser.value(active) == wanted:
                    return
                browser.press("Tab")
            check(False, f"Tab does not come to {wanted}")

        tab_to("figure")
        before = browser.value("document.getElementById('legend-least').textContent")
        browser.press("ArrowDown")
        check(browser.value("document.getElementById('legend-least').textContent") != before, "another figure changes no legend")
        tab_to("0")
        browser.press("ArrowRight")
        browser.press("ArrowDown")
        check("layer 1, head 1" in browser.value("document.getElementById('grid-value').textContent"), "arrows do not move over the map")
        browser.press("Enter")
        check(browser.value(active) == "head-title", "Enter does not come to the head")
        check(browser.value("document.getElementById('head-title').textContent") == "Layer 1, head 1", "Enter opens another head")
        tab_to("query")
        before = browser.value("document.getElementById('top-table').textContent")
        browser.press("Home")
        browser.press("ArrowRight")
        check(browser.value("document.getElementById('query-name').textContent").startswith("token 1 "), "the slider chooses no query")
        check(browser.value("document.querySelectorAll('#top-table tbody tr').length") == 2, "query 1 does not have two keys")
        check(browser.value("document.getElementById('top-table').textContent") != before, "the slider changes no weights")
        tab_to("temperature")
        cells = "[...document.querySelectorAll('#whatif-table tbody tr')].map(r => r.children[2].textContent)"
        cold = browser.value(cells)
        for _ in range(20):
            browser.press("ArrowRight")
        warm = browser.value(cells)
        check(float(warm[1]) > float(cold[1]), f"a higher temperature does not raise the entropy: {cold[1]} to {warm[1]}")
        check(browser.value("document.getElementById('temperature-value').textContent") == "2 (it was 1)", "20 steps are not a factor of 2")
        tab_to("length")
        browser.press("Home")
        check(browser.value(cells)[:4] == ["1", "0", "1", "1"], "one key does not have all weight")
        tab_to("audit-show")
        for _ in range(60):
            if browser.value("document.activeElement.dataset.column") == "7":
                break
            browser.press("Tab")
        browser.press("Enter")
        counts = browser.value("[...document.querySelectorAll('#audit-table tbody tr')].map(r => Number(r.children[7].textContent))")
        check(counts == sorted(counts, reverse=True) and counts[0] > 0, "the audit is not sorted by violations")
        check(not browser.complaints(), f"the console: {browser.complaints()[:1]}")

        browser.open(Path(hostile).resolve().as_uri())
        check(not browser.value("window.hurt || document.getElementById('hurt') || document.querySelector('img')"), "a token is no text")
        shown = browser.value("[...document.querySelectorAll('#tokens bdi')].map(t => t.textContent)")
        check(shown[0] == HOSTILE[0], f"the first token is shown as {shown[0]}")
        check(shown[1] == "\\u202eevil\\u202c", f"bidi controls are shown as {shown[1]!r}")
        check(shown[3] == "\\x00\\x1b[2J", f"control characters are shown as {shown[3]!r}")
        check(shown[4] == HOSTILE[4], f"emoji are shown as {shown[4]!r}")
        check(len(shown[6]) < 300, "a long token is not cut")
        check_looks(browser)
    finally:
        browser.end()


def check_experiments(program, page, pictures):
    """A page with the experiments of the paper on it: they are reached, shown, and within the width."""
    sys.path.insert(0, str(Path(__file__).parent))
    from browser import Browser
    browser = Browser(program)
    try:
        browser.open(Path(page).resolve().as_uri())
        check(browser.value("document.querySelector('nav a[href=\"#experiments\"]') !== null"), "no link to the experiments")
        section = "document.getElementById('experiments')"
        check(browser.value(section + ".querySelectorAll('table').length") >= 4, "tables of the experiments are missing")
        sizes = browser.value("[..." + section + ".querySelectorAll('img')].map(image => image.naturalWidth)")
        check(len(sizes) == int(pictures) and all(sizes), f"pictures of the experiments: {sizes}")
        check(browser.value("document.querySelectorAll('#grid td[data-head]').length") > 0, "no map of heads beside the experiments")
        check_looks(browser)
    finally:
        browser.end()


if __name__ == "__main__":
    {"model": make_model, "data": check_data, "browser": check_browser, "experiments": check_experiments}[sys.argv[1]](*sys.argv[2:])
    sys.exit(1 if failures else 0)
