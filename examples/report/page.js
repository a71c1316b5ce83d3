"use strict";
(() => {
    const data = JSON.parse(document.getElementById("data").textContent);
    const byId = (id) => document.getElementById(id);
    const real = (x) => (x === null || x === undefined ? NaN : Number(x)); // "Infinity" is text in JSON

    // ---------------------------------------------------------------- names

    // Figure: what it is called, its unit, what it says. d(N) and its kin are chosen with N.
    const about = {
        log_sum_exp: [
            "Log of the normaliser's sum", "nats",
            "log sum exp(z/T): the logarithm of what the weights are divided by"
        ],
        max_logit: ["Largest logit", "logits", "max z, before the temperature"],
        entropy_nats: ["Entropy", "nats", "of the weights; 0: one key has all of it"],
        max_weight: ["Largest weight", "", "of a key"],
        second_weight: ["Second weight", "", "of the key after the largest"],
        first_key_weight: ["Sink mass: weight of the first key", "", "heads that rest on it have little to do"],
        participation_ratio: ["Participation", "keys", "1/sum p²: as many equal keys would be as concentrated"],
        logit_spread: ["Spread of the logits", "logits", "max z - min z of the keys that a query sees"],
        "jacobian.spectral": [
            "|J|, spectral norm", "weight per logit",
            "how strongly the weights react to the logits: the largest singular value of dp/dz"
        ],
        "jacobian.frobenius": ["|J|, Frobenius norm", "weight per logit", "root of the sum of squares of dp/dz"],
        "jacobian.one": ["|J|, largest column sum", "weight per logit", "the 1 to 1 norm of dp/dz"],
        "jacobian.column": ["|J|, longest column", "weight per logit", "the 1 to 2 norm of dp/dz"],
        "jacobian.max_entry": ["|J|, largest entry", "weight per logit", "of dp/dz"],
        row_sum: ["Sum of the stored weights", "", "1 where nothing was left out"],
        unassigned_mass: ["Unassigned mass", "", "what the stored weights lack to 1"],
        hidden_mass: ["Hidden mass", "", "stored weight on keys that the mask hides"],
        sink_mass: ["Mass of the learned sink", "", "weight on the key without a value"],
        entropy_with_sink_nats: ["Entropy with the sink", "nats", "of the keys and the learned sink together"],
        half_context: [
            "Context for weight 1/2", "keys",
            "keys up to which the best one has half of the weight, if further keys are like those there: " +
                "the median of up to 32 rows"
        ],
        mass: ["Kept mass", "", "weight of the N keys of largest weight"],
        distance_cumulative: [
            "Distance d(N), cumulative", "",
            "sum of |s - y| over the keys that are not selected; y = p v, s the sum over the selected ones"
        ],
        distance_resultant: ["Distance d(N), resultant", "", "|sum of y over the keys that are not selected - s|"],
        distance_bound: ["Limit of d(N)", "", "by Theorem 1(1) for the cumulative distance"],
        expected_distance_lower: ["Random set: d(N) at least", "", "of the mean over random sets of N keys"],
        expected_distance_upper: ["Random set: d(N) at most", "", "of the mean over random sets of N keys"],
        truncation_error: ["Truncation error", "", "|output - that of the N keys alone|"],
        separable_fraction:
            ["Separable fraction", "", "share of the N selected tokens nearer to their sum than any other token"],
        precision: ["Precision", "", "N/(N + others no farther from s than the farthest selected token)"],
        recall: ["Recall", "", "share of the selected tokens nearer to s than every other token"],
        f_score: ["F score", "", "harmonic mean of precision and recall"],
        margin: ["Margin", "", "distance of the nearest other token less that of the farthest selected one"],
    };
    const titleOf = (name) => (about[name] ? about[name][0] : name);
    const unitOf = (name) => (about[name] ? about[name][1] : "");
    const curveNames = data.curves;
    const selectionNames = data.selection_figures;
    const normalizerNames = {
        softmax: "softmax",
        "ssmax:0.43": "scalable softmax, softmax(0.43 log n z)",
        "sink:1": "softmax with a sink, e^z/(1 + sum e^z)",
        own_sink: "softmax beside the head's own sink",
        sparsemax: "sparsemax",
        "entmax:1.5": "entmax 1.5",
    };

    /// A number for people.
    function show(x) {
        if (x === null || x === undefined || Number.isNaN(x)) return "not known";
        if (!Number.isFinite(x)) return x > 0 ? "∞" : "-∞";
        if (x === 0) return "0";
        const size = Math.abs(x);
        if (Number.isInteger(x) && size < 1e7) return String(x);
        if (size >= 1e5 || size < 1e-4) return x.toExponential(3);
        return String(Number(x.toPrecision(4)));
    }
    const withUnit = (name, x) => show(x) + (Number.isNaN(x) || !unitOf(name) ? "" : " " + unitOf(name));

    /// Characters that would turn, join or hide what stands beside them become their numbers.
    function plain(text) {
        return text.replace(
            // The joiner and the selectors of emoji stay.
            /[\u00AD\u034F\u061C\u115F\u1160\u180E\u200B\u200C\u200E\u200F\u2028-\u202E\u2060-\u206F\u3164\uFEFF\uFFA0\uFFF9-\uFFFB]/g,
            (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
    }
    /// Name of a token of the text: its place, and what it is where that is known.
    function tokenName(place) {
        const text = data.tokens[place];
        if (text === undefined) return String(place);
        const short = [...plain(text).replace(/\\x0a/g, "⏎").replace(/\\x09/g, "⇥")];
        return place + " “" + (short.length > 24 ? short.slice(0, 23).join("") + "…" : short.join("")) + "”";
    }
    // Queries are the last of the keys.
    const keyOfQuery = (query) => query + Math.max(0, data.shape[4] - data.shape[3]);

    // ---------------------------------------------------------------- elements

    function element(name, attributes, ...children) {
        const made = document.createElement(name);
        for (const [key, value] of Object.entries(attributes || {}))
            if (value !== null && value !== undefined) made.setAttribute(key, value);
        made.append(...children.map((child) => (typeof child === "number" ? String(child) : child)));
        return made;
    }
    function svg(name, attributes, ...children) {
        const made = document.createElementNS("http://www.w3.org/2000/svg", name);
        for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
        made.append(...children);
        return made;
    }
    function list(target, pairs) {
        target.replaceChildren(
            ...pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    }
    function options(select, pairs) {
        select.replaceChildren(...pairs.map(([value, text]) => element("option", {value}, text)));
    }
    const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

    // ---------------------------------------------------------------- bytes

    const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    function floatsOf(text) {
        const bytes = bytesOf(text), view = new DataView(bytes.buffer), floats = new Float64Array(bytes.length / 4);
        for (let i = 0; i < floats.length; ++i) floats[i] = view.getFloat32(4 * i, true);
        return floats;
    }

    /// Rows of a head as lists of keys and weights: see `encoded_row` in pattern.hpp.
    function decodeRows(text, count) {
        const bytes = bytesOf(text), view = new DataView(bytes.buffer), rows = [];
        let at = 0;
        const number = () => {
            let value = 0, unit = 1;
            for (;;) {
                const byte = bytes[at++];
                value += (byte & 127) * unit;
                if (byte < 128) return value;
                unit *= 128;
            }
        };
        for (let i = 0; i < count; ++i) {
            const size = number(), largest = view.getFloat32(at, true), keys = [], weights = [];
            at += 4;
            let next = 0;
            for (let j = 0; j < size; ++j) {
                const key = next + number(), level = bytes[at++] / 255;
                keys.push(key);
                weights.push(largest * level * level);
                next = key + 1;
            }
            rows.push({keys, weights});
        }
        return rows;
    }

    /// What a head has, decoded when it is asked for.
    function open(head) {
        if (head.open) return head.open;
        const flat = floatsOf(head.curves), size = data.queries.length, curves = {};
        curveNames.forEach((name, i) => (curves[name] = flat.subarray(i * size, (i + 1) * size)));
        const logits = floatsOf(head.logits), whole = [];
        let at = 0;
        for (const [length, largest] of head.whole || []) {
            whole.push({below: logits.subarray(at, at + length), largest});
            at += length;
        }
        return (head.open = {curves, whole, rows: decodeRows(head.rows, data.shown.length)});
    }

    // ---------------------------------------------------------------- normalisers

    /// Largest eigenvalue of diag(p) - p p^T, sink = 1 - sum p: the root above p2 of
    /// lambda (sum p_i/(p_i - lambda)) = sink, which keeps its digits where one key has nearly all weight.
    function spectral(p, sink) {
        let top = -1, p1 = 0, p2 = 0;
        for (let i = 0; i < p.length; ++i)
            if (p[i] > p1)
                [p2, p1, top] = [p1, p[i], i];
            else if (p[i] > p2)
                p2 = p[i];
        if (p2 === 0) return p1 * sink;
        if (p1 === p2) return p1;
        const above = (x) => {
            let sum = p1 / (p1 - x);
            for (let i = 0; i < p.length; ++i)
                if (i !== top) sum -= p[i] / (x - p[i]);
            return x * sum > sink;
        };
        let low = p2, high = p1;
        for (let step = 0; step < 200; ++step) {
            const middle = (low + high) / 2;
            if (!(middle > low && middle < high)) break;
            if (above(middle))
                high = middle;
            else
                low = middle;
        }
        return (low + high) / 2;
    }

    /// Weights and |J| of logits z (all finite) under a normaliser at a temperature; bounds where something is
    /// stated.
    function weigh(name, z, temperature, ownSink) {
        const n = z.length, largest = z.reduce((a, b) => Math.max(a, b), -Infinity);
        let p = new Float64Array(n), sink = 0, factor = 1 / temperature, shares = null, result = {};
        const divide = (beta, constant) => {
            // constant: what is added to sum e^{beta z}, as the logarithm
            const level = Math.max(beta * largest, constant), extra = Math.exp(constant - level);
            let sum = 0;
            for (let i = 0; i < n; ++i) sum += p[i] = Math.exp(beta * z[i] - level);
            for (let i = 0; i < n; ++i) p[i] /= sum + extra;
            sink = extra / (sum + extra);
        };
        if (name === "softmax") {
            divide(factor, -Infinity);
        } else if (name.startsWith("ssmax:")) {
            factor *= Number(name.slice(6)) * Math.log(n);
            divide(factor, -Infinity);
        } else if (name.startsWith("sink:")) {
            divide(factor, Math.log(Number(name.slice(5))));
        } else if (name === "own_sink") {
            divide(factor, ownSink / temperature);
        } else if (name === "sparsemax") {
            const sorted = Float64Array.from(z, (x) => (x - largest) * factor).sort().reverse();
            let sum = 0, threshold = 0;
            for (let k = 0; k < n; ++k) {
                sum += sorted[k];
                if (1 + (k + 1) * sorted[k] > sum) threshold = (sum - 1) / (k + 1);
            }
            p = Float64Array.from(z, (x) => Math.max(0, (x - largest) * factor - threshold));
            shares = p.map((x) => (x > 0 ? 1 : 0));
        } else { // entmax 1.5: p = max(0, z/2 - threshold)^2
            const half = Float64Array.from(z, (x) => ((x - largest) * factor) / 2);
            const sum = (threshold) => half.reduce((s, x) => s + Math.max(0, x - threshold) ** 2, 0);
            let low = -1, high = 0;
            for (let step = 0; step < 100; ++step) {
                const middle = (low + high) / 2;
                if (sum(middle) > 1)
                    low = middle;
                else
                    high = middle;
            }
            p = half.map((x) => Math.max(0, x - (low + high) / 2) ** 2);
            shares = p.map(Math.sqrt);
        }
        if (shares) {
            const all = shares.reduce((a, b) => a + b, 0);
            result.spectral = factor * all * spectral(shares.map((s) => s / all), 0);
        } else {
            result.spectral = factor * spectral(p, sink);
        }
        let sum = 0, squares = 0, entropy = 0, most = 0, least = Infinity, withWeight = 0, top = 0;
        for (let i = 0; i < n; ++i) {
            sum += p[i];
            squares += p[i] * p[i];
            if (p[i] > most) [most, top] = [p[i], i];
            if (p[i] > 0) [least, withWeight] = [Math.min(least, p[i]), withWeight + 1];
        }
        for (let i = 0; i < n; ++i)
            if (p[i] > 0) entropy -= (p[i] / sum) * Math.log(p[i] / sum);
        Object.assign(result, {p, entropy, largest: most, keys: (sum * sum) / squares, sink, withWeight, top});
        if (name === "softmax") {
            const smallest = z.reduce((a, b) => Math.min(a, b), Infinity);
            const tail = Math.exp(-(largest - smallest) / temperature), others = n - 1;
            result.range = [n === 1 ? 1 : tail / (tail + others), 1 / (1 + others * tail)];
            let rest = 0;
            for (let i = 0; i < n; ++i)
                if (i !== top) rest += p[i];
            result.limit =
                withWeight > 1
                    ? Math.min(1 / (2 + (withWeight - 2) * (least / most)), most, 2 * most * rest) / temperature
                    : 0;
        }
        return result;
    }

    /// The last `length` keys that a whole row sees: logits and their keys.
    function seenKeys(row, length) {
        const keys = [];
        for (let key = row.below.length - 1; key >= 0 && keys.length < length; --key)
            if (Number.isFinite(row.below[key])) keys.push(key);
        keys.reverse();
        return {keys, z: Float64Array.from(keys, (key) => row.below[key] + row.largest)};
    }

    /// This page's figures beside the library's: the largest difference, relative to a figure or, below 0.0001, to that.
    function checkOneself() {
        let largest = 0, figures = 0;
        const lines = [];
        for (const check of data.checks) {
            const head = data.heads[check.head];
            const {z} = seenKeys(open(head).whole[check.row], check.length);
            const here = weigh(check.normalizer, z, check.temperature, real(head.sink));
            const pairs = [
                ["entropy", here.entropy], ["largest", here.largest], ["keys", here.keys],
                ["spectral", here.spectral]
            ];
            const compare = (name, mine, theirs) => {
                const difference = Math.abs(mine - theirs) / Math.max(Math.abs(theirs), 1e-4);
                largest = difference <= largest ? largest : difference; // NaN stays
                ++figures;
                lines.push([
                    check.head, check.row, check.normalizer, check.temperature, check.length, name, mine, theirs
                ].join(","));
            };
            for (const [name, mine] of pairs) compare(name, mine, check[name]);
            if (check.range) {
                compare("range_lower", here.range[0], check.range[0]);
                compare("range_upper", here.range[1], check.range[1]);
                compare("limit", here.limit, check.limit);
            }
        }
        return {largest, figures, lines};
    }

    // ---------------------------------------------------------------- state

    const state =
        {batch: 0, figure: "", count: 0, head: 0, shown: data.shown.length - 1, row: data.whole.length - 1};
    const batches = [...new Set(data.heads.map((head) => head.place[0]))];
    const layers = [...new Set(data.heads.map((head) => head.place[1]))];
    const columns = [...new Set(data.heads.map((head) => head.place[2]))];
    const headAt = (batch, layer, column) => data.heads.findIndex(
        (head) => head.place[0] === batch && head.place[1] === layer && head.place[2] === column);
    const headName = (head) => (batches.length > 1 ? "batch " + head.place[0] + ", " : "") + "layer " +
                               head.place[1] + ", head " + head.place[2];
    const counts =
        [...new Set(data.heads.flatMap((head) => head.selections.map((entry) => entry[0])))].sort((a, b) => a - b);

    /// A figure of a head; of a selection at the chosen N.
    function figureOf(head, name, count) {
        const place = data.figures.indexOf(name);
        if (place >= 0) return real(head.mean[place]);
        const entry = head.selections.find((one) => one[0] === count);
        return entry ? real(entry[1 + selectionNames.indexOf(name)]) : NaN;
    }

    // ---------------------------------------------------------------- map

    // Five colours from little to much, of growing darkness or lightness for everybody's eyes.
    const ramp = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
    function colour(share) {
        const x = Math.min(1, Math.max(0, share)) * (ramp.length - 1), i = Math.min(ramp.length - 2, Math.floor(x));
        return "rgb(" + ramp[i].map((c, k) => Math.round(c + (ramp[i + 1][k] - c) * (x - i))).join(",") + ")";
    }
    const selectionFigures = selectionNames.filter(
        (name) => data.heads.some((head) => head.selections.some(
                                      (entry) => !Number.isNaN(real(entry[1 + selectionNames.indexOf(name)])))));
    const mapFigures =
        data.figures.filter((name, i) => data.heads.some((head) => !Number.isNaN(real(head.mean[i]))));

    function drawMap() {
        const ofSelection = selectionNames.includes(state.figure);
        byId("count-label").hidden = !ofSelection;
        const values = data.heads.map((head) => figureOf(head, state.figure, state.count));
        const finite = values.filter(Number.isFinite);
        let least = Math.min(...finite), most = Math.max(...finite);
        // Contexts span decades.
        const scale = state.figure === "half_context" && least > 0 ? Math.log : (x) => x;
        byId("figure-text").textContent =
            (state.figure === "half_context" ? "Of a head" : "Mean over the rows of a head") +
            (ofSelection ? " at N = " + state.count : "") +
            (unitOf(state.figure) ? ", in " + unitOf(state.figure) : "") +
            (about[state.figure] ? ": " + about[state.figure][2] : "") + ".";
        byId("legend-least").textContent = finite.length ? withUnit(state.figure, least) : "not known";
        byId("legend-most").textContent = finite.length ? withUnit(state.figure, most) : "";
        const bar = byId("legend-bar").getContext("2d");
        for (let x = 0; x < 256; ++x) {
            bar.fillStyle = colour(x / 255);
            bar.fillRect(x, 0, 1, 1);
        }
        const grid = byId("grid"), focused = grid.contains(document.activeElement);
        const header =
            element("tr", {role: "row"}, element("th", {role: "columnheader", scope: "col"}, "layer"),
                    ...columns.map((column) => element("th", {role: "columnheader", scope: "col"}, column)));
        const rows = layers.map(
            (layer) => element("tr", {role: "row"}, element("th", {role: "rowheader", scope: "row"}, layer),
                               ...columns.map((column) => {
                                   const index = headAt(state.batch, layer, column);
                                   if (index < 0) return element("td", {role: "gridcell"});
                                   const value = values[index];
                                   const cell = element("td", {
                                       role: "gridcell",
                                       tabindex: index === state.cell ? "0" : "-1",
                                       "data-head": index,
                                       "aria-label": headName(data.heads[index]) + ": " + titleOf(state.figure) +
                                                         " " + withUnit(state.figure, value),
                                       "aria-selected": index === state.head ? "true" : "false"
                                   });
                                   if (index === state.head) cell.classList.add("chosen");
                                   const share = most > least
                                                     ? (scale(value) - scale(least)) / (scale(most) - scale(least))
                                                     : 0.5;
                                   cell.style.background = Number.isNaN(value)
                                                               ? style("--none")
                                                               : colour(Number.isNaN(share) ? 1 : share);
                                   return cell;
                               })));
        grid.replaceChildren(element("thead", {role: "rowgroup"}, header),
                             element("tbody", {role: "rowgroup"}, ...rows));
        if (focused) cellOf(state.cell).focus();
    }
    const cellOf = (index) => byId("grid").querySelector("[data-head=\"" + index + "\"]");
    function tellCell(index) {
        byId("grid-value").textContent =
            headName(data.heads[index]) + ": " + titleOf(state.figure) + " " +
            withUnit(state.figure, figureOf(data.heads[index], state.figure, state.count));
    }
    function moveTo(index) {
        const before = cellOf(state.cell);
        if (before) before.tabIndex = -1;
        state.cell = index;
        const cell = cellOf(index);
        cell.tabIndex = 0;
        cell.focus();
    }
    function startMap() {
        const groups = [element("optgroup", {label: "Rows"},
                                ...mapFigures.map((name) => element("option", {value: name}, titleOf(name))))];
        if (selectionFigures.length)
            groups.push(
                element("optgroup", {label: "Selections of N keys"},
                        ...selectionFigures.map((name) => element("option", {value: name}, titleOf(name)))));
        byId("figure").replaceChildren(...groups);
        state.figure = mapFigures.includes("entropy_nats") ? "entropy_nats" : mapFigures[0];
        byId("figure").value = state.figure;
        options(byId("count"), counts.map((n) => [n, String(n)]));
        state.count = counts.includes(5) ? 5 : counts[0];
        if (counts.length) byId("count").value = state.count;
        options(byId("batch"), batches.map((batch) => [batch, String(batch)]));
        byId("batch-label").hidden = batches.length < 2;
        state.batch = batches[0];
        state.cell = 0;
        byId("figure").addEventListener("change", (event) => {
            state.figure = event.target.value;
            drawMap();
        });
        byId("count").addEventListener("change", (event) => {
            state.count = Number(event.target.value);
            drawMap();
        });
        byId("batch").addEventListener("change", (event) => {
            state.batch = Number(event.target.value);
            state.cell = data.heads.findIndex((head) => head.place[0] === state.batch);
            drawMap();
        });
        const grid = byId("grid");
        const indexOf = (event) => {
            const cell = event.target.closest("[data-head]");
            return cell ? Number(cell.dataset.head) : -1;
        };
        grid.addEventListener("click", (event) => {
            if (indexOf(event) >= 0) openHead(indexOf(event), true);
        });
        grid.addEventListener("mouseover", (event) => {
            if (indexOf(event) >= 0) tellCell(indexOf(event));
        });
        grid.addEventListener("focusin", (event) => {
            if (indexOf(event) >= 0) tellCell(indexOf(event));
        });
        grid.addEventListener("keydown", (event) => {
            const index = indexOf(event);
            if (index < 0 || event.altKey || event.metaKey) return;
            const [, layer, column] = data.heads[index].place;
            const row = layers.indexOf(layer), place = columns.indexOf(column);
            const last = columns.length - 1;
            const to = {
                ArrowLeft: [row, place - 1],
                ArrowRight: [row, place + 1],
                ArrowUp: [row - 1, place],
                ArrowDown: [row + 1, place],
                Home: [event.ctrlKey ? 0 : row, 0],
                End: [event.ctrlKey ? layers.length - 1 : row, last]
            }[event.key];
            if (event.key === "Enter" || event.key === " ") {
                event.preventDefault();
                openHead(index, true);
            } else if (to) {
                event.preventDefault();
                const next = to[0] >= 0 && to[1] >= 0 && to[0] < layers.length && to[1] <= last
                                 ? headAt(state.batch, layers[to[0]], columns[to[1]])
                                 : -1;
                if (next >= 0) moveTo(next);
            }
        });
    }

    // ---------------------------------------------------------------- charts

    /// Lines over an axis. series: [{name, points: [[x, y]...], kind}]; y from 0 unless logarithmic.
    function chart(title, series, {xTitle, yTitle, logX, logY, mark, yMost} = {}) {
        const width = 520, height = 290, left = 62, right = 12, top = 12,
              bottom = 42 + 16 * Math.ceil(series.length / 2);
        const points = series.flatMap((one) => one.points)
                           .filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && (!logX || x > 0) &&
                                               (!logY || y > 0));
        if (!points.length) return element("p", {class: "soft"}, title + ": not known here.");
        const range = (k) => [Math.min(...points.map((p) => p[k])), Math.max(...points.map((p) => p[k]))];
        let [x0, x1] = range(0), [y0, y1] = range(1);
        if (!logY) [y0, y1] = [Math.min(0, y0), yMost || (y1 > 0 ? y1 * 1.05 : 1)];
        if (x1 === x0) x1 = logX ? x0 * 2 : x0 + 1;
        if (y1 === y0) y1 = logY ? y0 * 2 : y0 + 1;
        const place = (v, a, b, log) => (log ? Math.log(v / a) / Math.log(b / a) : (v - a) / (b - a));
        const sx = (x) => left + place(x, x0, x1, logX) * (width - left - right);
        const sy = (y) => height - bottom - place(y, y0, y1, logY) * (height - top - bottom);
        const ticks = (a, b, log) => {
            if (log) {
                const all = [];
                for (let e = Math.floor(Math.log10(a)); e <= Math.ceil(Math.log10(b)); ++e)
                    for (const m of b / a > 300 ? [1] : b / a > 20 ? [1, 3] : [1, 2, 5])
                        all.push(Number((m * 10 ** e).toPrecision(3)));
                return all.filter((t) => t >= a * 0.999 && t <= b * 1.001);
            }
            const raw = (b - a) / 5, unit = 10 ** Math.floor(Math.log10(raw));
            const step = [1, 2, 5, 10].find((m) => m * unit >= raw) * unit, all = [];
            for (let t = Math.ceil(a / step) * step; t <= b + step * 1e-9; t += step)
                all.push(Number(t.toPrecision(6)));
            return all;
        };
        const made = svg("svg", {viewBox: "0 0 " + width + " " + height, role: "img"});
        const words = series.map((one) => {
            const known = one.points.filter((p) => Number.isFinite(p[1]));
            return known.length
                       ? one.name + " from " + show(known[0][1]) + " to " + show(known[known.length - 1][1])
                       : one.name + " not known";
        });
        made.append(svg("title", {}, title + ". " + words.join("; ")));
        for (const t of ticks(x0, x1, logX)) {
            made.append(svg("line", {class: "rule", x1: sx(t), x2: sx(t), y1: top, y2: height - bottom}));
            made.append(svg("text", {x: sx(t), y: height - bottom + 15, "text-anchor": "middle"}, show(t)));
        }
        for (const t of ticks(y0, y1, logY)) {
            made.append(svg("line", {class: "rule", x1: left, x2: width - right, y1: sy(t), y2: sy(t)}));
            made.append(svg("text", {x: left - 6, y: sy(t) + 4, "text-anchor": "end"}, show(t)));
        }
        made.append(svg(
            "path", {class: "axis", d: "M" + left + " " + top + "V" + (height - bottom) + "H" + (width - right)}));
        if (mark !== undefined && Number.isFinite(mark))
            made.append(svg("line", {class: "here", x1: sx(mark), x2: sx(mark), y1: top, y2: height - bottom}));
        const kinds = ["one", "two", "three", "four"];
        series.forEach((one, i) => {
            let d = "", pen = false;
            for (const [x, y] of one.points) {
                const known = Number.isFinite(y) && (!logY || y > 0) && (!logX || x > 0);
                if (known)
                    d += (pen ? "L" : "M") + sx(x).toFixed(1) + " " + sy(Math.min(y, logY ? y : y1)).toFixed(1);
                pen = known;
            }
            made.append(svg("path", {class: "line " + kinds[i], d}));
            const lx = left + (i % 2) * 225, ly = height - bottom + 36 + 16 * Math.floor(i / 2) + 12;
            made.append(svg("line", {class: "line " + kinds[i], x1: lx, x2: lx + 26, y1: ly - 4, y2: ly - 4}));
            made.append(svg("text", {x: lx + 32, y: ly}, one.name));
        });
        made.append(
            svg("text", {x: (left + width - right) / 2, y: height - bottom + 31, "text-anchor": "middle"}, xTitle));
        made.append(svg("text", {
            x: 14,
            y: (top + height - bottom) / 2,
            "text-anchor": "middle",
            transform: "rotate(-90 14 " + (top + height - bottom) / 2 + ")"
        },
                        yTitle));
        return made;
    }

    /// Bars over keys from 0 to n-1; outline: other values, drawn as a line.
    function drawBars(canvas, n, keys, values, outline) {
        const box = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
        const width = (canvas.width = Math.max(64, Math.round(box.width * dense))),
              height = (canvas.height = Math.max(64, Math.round(box.height * dense)));
        const pen = canvas.getContext("2d");
        const margin = {left: 46 * dense, bottom: 20 * dense, top: 8 * dense, right: 4 * dense};
        const most = Math.max(1e-12, ...values, ...(outline ? outline.values : []));
        const x = (key) => margin.left + (key / n) * (width - margin.left - margin.right);
        const y = (value) => height - margin.bottom - (value / most) * (height - margin.top - margin.bottom);
        pen.clearRect(0, 0, width, height);
        pen.font = 12 * dense + "px system-ui, sans-serif";
        pen.fillStyle = style("--ink");
        pen.strokeStyle = style("--line");
        for (const part of [0, 0.5, 1]) {
            pen.beginPath();
            pen.moveTo(margin.left, y(most * part));
            pen.lineTo(width - margin.right, y(most * part));
            pen.stroke();
            pen.textAlign = "right";
            pen.fillText(show(Number((most * part).toPrecision(2))), margin.left - 5 * dense,
                         y(most * part) + 4 * dense);
        }
        pen.textAlign = "left";
        pen.fillText("key 0", margin.left, height - 5 * dense);
        pen.textAlign = "right";
        pen.fillText("key " + (n - 1), width - margin.right, height - 5 * dense);
        pen.fillStyle = style("--bar");
        const bar = Math.max(dense, x(1) - x(0) - (x(1) - x(0) > 4 * dense ? dense : 0));
        keys.forEach((key, i) => pen.fillRect(x(key), y(values[i]), bar, height - margin.bottom - y(values[i])));
        if (outline) {
            pen.strokeStyle = style("--second");
            pen.lineWidth = 1.5 * dense;
            pen.beginPath();
            outline.keys.forEach((key, i) => {
                const at = x(key) + (x(1) - x(0)) / 2;
                if (i === 0 || outline.keys[i - 1] !== key - 1)
                    pen.moveTo(at, y(outline.values[i]));
                else
                    pen.lineTo(at, y(outline.values[i]));
            });
            pen.stroke();
            if (outline.keys.length === 1)
                pen.strokeRect(x(outline.keys[0]), y(outline.values[0]), bar,
                               height - margin.bottom - y(outline.values[0]));
        }
    }

    // ---------------------------------------------------------------- a head

    function openHead(index, focus) {
        state.head = index;
        state.cell = index;
        const head = data.heads[index], what = open(head);
        if (head.place[0] !== state.batch) {
            state.batch = head.place[0];
            byId("batch").value = state.batch;
        }
        byId("head-title").textContent = headName(head)[0].toUpperCase() + headName(head).slice(1);
        const named = [
            "entropy_nats", "participation_ratio", "max_weight", "first_key_weight", "sink_mass",
            "jacobian.spectral", "half_context", "logit_spread"
        ];
        const pairs = named.filter((name) => data.figures.includes(name))
                          .map((name) => [titleOf(name), withUnit(name, figureOf(head, name))]);
        for (const name of ["separable_fraction", data.reading])
            if (selectionFigures.includes(name))
                pairs.push(
                    [titleOf(name) + ", N = " + state.count, withUnit(name, figureOf(head, name, state.count))]);
        const violated =
            head.audit.filter((entry) => entry[5] > 0)
                .map((entry) => data.statements[entry[0]][0] + " (" + data.statements[entry[0]][1] + ")");
        byId("head-audit").hidden = !head.audit.length;
        byId("head-audit-text").textContent =
            "Audit of this head, " + head.audit.length + " statements: " +
            (violated.length ? "violated " + (violated.length === 1 ? "is " : "are ") + violated.join(", ") + "."
                             : "none is violated.");
        list(byId("head-figures"), pairs);
        byId("pattern-text").textContent = patternText(head);
        drawMap();
        drawPattern(what);
        drawQuery();
        drawCurve();
        drawSelections(head);
        startRow();
        if (byId("audit-scope").value === "head") drawAudit();
        if (focus) {
            byId("head-title").scrollIntoView();
            byId("head-title").focus();
        }
    }
    function patternText(head) {
        const all = data.shown.length === data.shape[3];
        return (all ? "All queries. "
                    : data.shown.length + " of " + data.shape[3] + " queries, " +
                          (data.streamed ? "" : "evenly spaced, ") + "the last among them. ") +
               "Of each row the " + data.most_keys +
               " largest weights at most, in 255 steps of their root: they hold " + show(100 * real(head.kept[0])) +
               " % of the weight of a row in the mean, " + show(100 * real(head.kept[1])) + " % at least.";
    }
    function drawPattern(what) {
        const canvas = byId("pattern"), keys = data.shape[4], rows = what.rows.length;
        if (!rows) return;
        const width = (canvas.width = Math.min(keys, 512)), height = (canvas.height = Math.min(rows, 512));
        const most = new Float32Array(width * height);
        what.rows.forEach((row, i) => {
            const y = Math.floor((i * height) / rows);
            const largest = Math.max(...row.weights);
            row.keys.forEach((key, j) => {
                const at = y * width + Math.floor((key * width) / keys);
                most[at] = Math.max(most[at], row.weights[j] / largest);
            });
        });
        const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
        const tint = style("--weight").split(",").map(Number);
        most.forEach((weight, i) => {
            image.data.set(tint, 4 * i);
            image.data[4 * i + 3] = Math.round(255 * Math.min(1, Math.sqrt(weight)));
        });
        pen.putImageData(image, 0, 0);
    }
    /// Place of a shown query among those with figures.
    const figurePlace = new Map(data.queries.map((query, i) => [query, i]));
    function drawQuery() {
        const head = data.heads[state.head], what = open(head), query = data.shown[state.shown],
              row = what.rows[state.shown];
        const slider = byId("query"), name = tokenName(keyOfQuery(query));
        slider.value = state.shown;
        const label = data.tokens.length ? "token " + name : String(query);
        byId("query-name").textContent = label;
        slider.setAttribute("aria-valuetext", label);
        const order =
            row.keys.map((_, i) => i).sort((a, b) => row.weights[b] - row.weights[a] || row.keys[a] - row.keys[b]);
        const top = Math.max(1, Math.min(100, Number(byId("top").value) || 10));
        byId("top-table")
            .replaceChildren(
                element(
                    "thead", {},
                    element("tr", {},
                            ...["rank", "key", "token", "weight", "sum"].map(
                                (t) => element("th", {scope: "col", class: t === "token" ? null : "number"}, t)))),
                element(
                    "tbody", {},
                    ...order.slice(0, top).map(
                        (i, rank) => element(
                            "tr", {}, element("td", {class: "number"}, rank + 1),
                            element("td", {class: "number"}, row.keys[i]),
                            element("td", {},
                                    element("bdi", {},
                                            data.tokens.length ? tokenName(row.keys[i]).replace(/^\d+ /, "") : "")),
                            element("td", {class: "number"}, show(row.weights[i])),
                            element("td", {class: "number"},
                                    show(order.slice(0, rank + 1).reduce((s, j) => s + row.weights[j], 0)))))));
        const place = figurePlace.get(query);
        list(byId("query-figures"),
             curveNames.map((figure) => [titleOf(figure), withUnit(figure, what.curves[figure][place])]));
        drawBars(byId("bars"), data.shape[4], row.keys, row.weights);
        byId("bars-text").textContent = order.length
                                            ? "Query " + label + ": most weight on key " +
                                                  tokenName(row.keys[order[0]]) + ", " + show(row.weights[order[0]])
                                            : "Query " + label + ": no weights.";
        const most = order.length ? row.weights[order[0]] : 1,
              weights = new Map(row.keys.map((key, i) => [key, row.weights[i]]));
        [...byId("tokens").children].forEach((token, key) => {
            const weight = weights.get(key) || 0;
            token.style.backgroundColor =
                weight > 0 ? "rgba(" + style("--weight") + "," + (0.45 * Math.sqrt(weight / most)).toFixed(3) + ")"
                           : "";
            token.classList.toggle("query", key === keyOfQuery(query));
        });
    }
    /// Nearest shown query.
    function chooseQuery(query) {
        let best = 0;
        data.shown.forEach((shown, i) => {
            if (Math.abs(shown - query) < Math.abs(data.shown[best] - query)) best = i;
        });
        state.shown = best;
        drawQuery();
        drawCurve();
    }
    function drawCurve() {
        const what = open(data.heads[state.head]), name = byId("curve").value;
        const points = data.queries.map((query, i) => [query, what.curves[name][i]]);
        byId("curve-chart")
            .replaceChildren(
                chart(titleOf(name) + " along the text", [{name: titleOf(name), points}],
                      {xTitle: "query", yTitle: unitOf(name) || titleOf(name), mark: data.shown[state.shown]}));
    }
    function drawSelections(head) {
        const of = (name) =>
            head.selections.map((entry) => [entry[0], real(entry[1 + selectionNames.indexOf(name)])]);
        const some = (names) => names.filter((name) => of(name).some((p) => Number.isFinite(p[1])))
                                    .map((name) => ({name: titleOf(name), points: of(name)}));
        const distances =
            data.reading === "distance_cumulative"
                ? ["distance_cumulative", "distance_bound", "expected_distance_lower", "expected_distance_upper"]
                : ["distance_resultant"];
        const charts = [
            ["d(N)", some(distances), "distance"],
            [
                "Precision, recall and separable fraction",
                some(["precision", "recall", "separable_fraction", "mass"]), "share"
            ]
        ];
        byId("selection-charts")
            .replaceChildren(...charts.map(
                ([title, series, yTitle]) => chart(
                    title, series,
                    {xTitle: "N selected keys", yTitle, logX: true, yMost: yTitle === "share" ? 1 : undefined})));
    }
    function startHead() {
        const slider = byId("query");
        slider.max = Math.max(0, data.shown.length - 1);
        slider.disabled = !data.shown.length;
        slider.addEventListener("input", () => {
            state.shown = Number(slider.value);
            drawQuery();
            drawCurve();
        });
        options(byId("curve"), curveNames.map((name) => [name, titleOf(name)]));
        byId("curve").addEventListener("change", drawCurve);
        byId("top").addEventListener("input", drawQuery);
        byId("show-audit").addEventListener("click", () => {
            byId("audit-scope").value = "head";
            drawAudit();
            byId("audit").scrollIntoView();
            byId("audit-scope").focus();
        });
        byId("previous-head")
            .addEventListener("click", () => openHead((state.head + data.heads.length - 1) % data.heads.length));
        byId("next-head").addEventListener("click", () => openHead((state.head + 1) % data.heads.length));
        byId("back-to-map").addEventListener("click", (event) => {
            event.preventDefault();
            cellOf(state.head).focus();
        });
        byId("pattern").addEventListener("click", (event) => {
            const box = event.target.getBoundingClientRect();
            const place = Math.floor(((event.clientY - box.top) / box.height) * data.shown.length);
            state.shown = Math.max(0, Math.min(data.shown.length - 1, place));
            drawQuery();
            drawCurve();
        });
        const tokens = byId("tokens"), most = 8192;
        tokens.hidden = !data.tokens.length;
        byId("token-help").textContent =
            data.tokens.length
                ? "The text, coloured by the weights of the underlined query; a click or the arrow keys " +
                      "choose another." +
                      (data.tokens.length > most ? " Its first " + most + " tokens." : "")
                : "The input holds no text of its tokens: keys are told by their number.";
        tokens.replaceChildren(...data.tokens.slice(0, most).map((text, i) => {
            const token =
                element("bdi", {"data-key": i}, plain(text).replace(/\\x0a/g, "⏎\n").replace(/\\x09/g, "⇥"));
            if (!data.shown.some((query) => keyOfQuery(query) === i)) token.classList.add("away");
            return token;
        }));
        const first = keyOfQuery(0);
        tokens.addEventListener("click", (event) => {
            const token = event.target.closest("[data-key]");
            if (token && Number(token.dataset.key) >= first) chooseQuery(Number(token.dataset.key) - first);
        });
        tokens.addEventListener("keydown", (event) => {
            const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
            if (!step) return;
            event.preventDefault();
            state.shown = Math.max(0, Math.min(data.shown.length - 1, state.shown + step));
            drawQuery();
            drawCurve();
        });
    }

    // ---------------------------------------------------------------- what if

    function rowNow() {
        const head = data.heads[state.head], whole = open(head).whole[state.row];
        const seen = seenKeys(whole, Infinity);
        const length = Math.max(1, Math.min(seen.keys.length, Number(byId("length").value) || 1));
        const temperature = head.temperature * 2 ** Number(byId("temperature").value);
        return {
            head,
            seen,
            cut: seenKeys(whole, length),
            length,
            temperature,
            normalizer: byId("normalizer").value,
            ownSink: real(head.sink)
        };
    }
    /// The normaliser of the head, as far as the page computes it.
    const ownNormalizer = (head) => (head.sink !== undefined            ? "own_sink"
                                     : normalizerNames[head.normalizer] ? head.normalizer
                                                                        : "softmax");
    function startRow() {
        const head = data.heads[state.head];
        const usable = data.whole.length > 0 && open(head).whole.some((row) => seenKeys(row, 1).keys.length > 0);
        byId("whatif-body").hidden = !usable;
        byId("whatif-text").textContent =
            usable
                ? "All logits of " +
                      (data.whole.length === data.shape[3]
                           ? "every row"
                           : data.whole.length + (data.whole.length === 1 ? " row" : " rows") + " of each head") +
                      " are on this page: another temperature, length or normaliser is computed " +
                      "here. Shorter rows have the last keys that the query sees." +
                      (normalizerNames[head.normalizer] ? ""
                                                        : " The head's own normaliser, " + head.normalizer +
                                                              ", is not computed here; softmax is in its place.")
                : "No row of this head has all of its logits on this page: a report of fewer heads, chosen by --layers " +
              "and --heads, has room for them.";
        if (!usable) return;
        if (!seenKeys(open(head).whole[state.row], 1).keys.length)
            state.row = open(head).whole.findIndex((row) => seenKeys(row, 1).keys.length > 0);
        options(byId("row"),
                data.whole.map(
                    (query, i) => [i, "query " + (data.tokens.length ? tokenName(keyOfQuery(query)) : query)]));
        byId("row").value = state.row;
        const chosen = byId("normalizer").value;
        const names = Object.keys(normalizerNames)
                          .filter((name) => (name !== "own_sink" || head.sink !== undefined) &&
                                            (!name.startsWith("sink:") || data.kind !== "weights"));
        options(byId("normalizer"), names.map((name) => [name, normalizerNames[name]]));
        byId("normalizer").value = names.includes(chosen) ? chosen : ownNormalizer(head);
        startLength();
    }
    function startLength() {
        const seen = seenKeys(open(data.heads[state.head]).whole[state.row], Infinity);
        const slider = byId("length");
        slider.max = Math.max(1, seen.keys.length);
        slider.value = slider.max;
        drawWhatIf();
    }
    let whatIfTable = [];
    function drawWhatIf() {
        const now = rowNow();
        if (!now.seen.keys.length) return;
        const own = ownNormalizer(now.head);
        const before = weigh(own, now.seen.z, now.head.temperature, now.ownSink);
        const here = weigh(now.normalizer, now.cut.z, now.temperature, now.ownSink);
        byId("temperature-value").textContent =
            show(now.temperature) + " (it was " + show(now.head.temperature) + ")";
        byId("temperature").setAttribute("aria-valuetext", show(now.temperature));
        byId("length-value").textContent = now.length + " of " + now.seen.keys.length + " keys";
        byId("length").setAttribute("aria-valuetext", now.length + " keys");
        const limits = (set, temperature, normalizer, n) => {
            const softmax = normalizer === "softmax";
            const most = {
                softmax: 0.5 / temperature,
                "ssmax:0.43": (0.43 * Math.log(n)) / (2 * temperature),
                "sink:1": 0.5 / temperature,
                own_sink: 0.5 / temperature,
                sparsemax: 1 / temperature
            }[normalizer];
            return {
                "Weights lie between (Corollary 1, sharp), least": softmax ? set.range[0] : NaN,
                "Weights lie between (Corollary 1, sharp), most": softmax ? set.range[1] : NaN,
                "|J| at most, from the weights (Corollary 3, sharp)": softmax ? set.limit : NaN,
                "|J| at most, of any row": most === undefined ? NaN : most,
                "|J| at most, as published (Corollary 3)": softmax ? Math.min(0.25 / temperature, Math.SQRT2) : NaN,
                "Entropy at most, log n (nats)": Math.log(n)
            };
        };
        const a = limits(before, now.head.temperature, own, now.seen.keys.length),
              b = limits(here, now.temperature, now.normalizer, now.cut.keys.length);
        const rows = [
            ["Largest weight", before.largest, here.largest], ["Entropy (nats)", before.entropy, here.entropy],
            ["Participation (keys)", before.keys, here.keys],
            ["Keys with weight", before.withWeight, here.withWeight],
            ["Weight outside of the keys", before.sink, here.sink],
            ["|J| (weight per logit)", before.spectral, here.spectral],
            ...Object.keys(a).map((name) => [name, a[name], b[name]])
        ];
        whatIfTable = rows;
        const beyond = (value, x, limit) =>
            x > limit * (1 + 1e-9) ? element("td", {class: "number violated"}, show(value) + ", violated")
                                   : element("td", {class: "number"}, Number.isNaN(value) ? "-" : show(value));
        byId("whatif-table")
            .replaceChildren(
                element("thead", {},
                        element("tr", {}, element("th", {scope: "col"}, "figure"),
                                element("th", {scope: "col", class: "number"}, "as it was"),
                                element("th", {scope: "col", class: "number"}, "with these settings"))),
                element("tbody", {}, ...rows.map(([name, x, y]) => {
                    const gradient = name.startsWith("|J| at most");
                    return element("tr", {}, element("th", {scope: "row"}, name),
                                   gradient ? beyond(x, before.spectral, x)
                                            : element("td", {class: "number"}, Number.isNaN(x) ? "-" : show(x)),
                                   gradient ? beyond(y, here.spectral, y)
                                            : element("td", {class: "number"}, Number.isNaN(y) ? "-" : show(y)));
                })));
        byId("whatif-status").textContent = "Largest weight " + show(here.largest) + ", entropy " +
                                            show(here.entropy) + " nats, norm of J " + show(here.spectral);
        drawBars(byId("whatif-bars"), open(now.head).whole[state.row].below.length, now.cut.keys, [...here.p],
                 {keys: now.seen.keys, values: [...before.p]});
        const temperatures = [...Array(49).keys()].map((i) => now.head.temperature * 2 ** ((i - 24) / 6));
        const line = (of) => temperatures.map((t) => [t, of(t)]);
        byId("gradient-chart")
            .replaceChildren(
                chart("|J| against the temperature",
                      [
                          {
                              name: "|J| of this row",
                              points: line((t) => weigh(now.normalizer, now.cut.z, t, now.ownSink).spectral)
                                          .map(([t, y]) => [t, y > 1e-6 ? y : NaN])
                          },
                          {name: "1/(2T): softmax, sharp", points: line((t) => 0.5 / t)},
                          {name: "min{1/(4T), √2}: published", points: line((t) => Math.min(0.25 / t, Math.SQRT2))},
                      ],
                      {
                          xTitle: "temperature T",
                          yTitle: "weight per logit",
                          logX: true,
                          logY: true,
                          mark: now.temperature
                      }));
    }
    function startWhatIf() {
        byId("row").addEventListener("change", (event) => {
            state.row = Number(event.target.value);
            startLength();
        });
        for (const id of ["normalizer", "temperature", "length"]) byId(id).addEventListener("input", drawWhatIf);
        byId("temperature").value = 0;
        byId("reset").addEventListener("click", () => {
            byId("temperature").value = 0;
            byId("normalizer").value = ownNormalizer(data.heads[state.head]);
            startLength();
        });
        const {largest, figures} = checkOneself();
        byId("checks").textContent = figures
                                         ? "Checked when the page was opened: " + figures +
                                               " figures that the browser computed differ from the library's by " +
                                               show(largest) + " of their size at most."
                                         : "";
        if (figures && !(largest < 1e-6)) {
            byId("checks").textContent += " That is too much: do not trust the figures of this part.";
            byId("checks").classList.add("violated");
        }
    }

    // ---------------------------------------------------------------- audit

    const verdicts = ["holds", "within rounding", "vacuous", "undefined", "violated"];
    const auditColumns = [
        ["statement", "text"], ["form", "text"], ["rows", "number"], ["holds", "number"], ["rounding", "number"],
        ["vacuous", "number"], ["undefined", "number"], ["violated", "number"], ["median use", "number"],
        ["largest use", "number"], ["closest row", "text"], ["inequality", "text"]
    ];
    const auditSort = {column: -1, down: false};

    /// The rows of the audit table as values.
    function auditRows() {
        const one = byId("audit-scope").value === "head", head = data.heads[state.head];
        return (one ? head.audit : data.audit).map((entry) => {
            const [id, form, provenance, text, conditions, source] = data.statements[entry[0]];
            // Which head has the row that comes closest.
            let of = one ? state.head : -1;
            if (!one && entry.length > 8) {
                let most = -1;
                data.heads.forEach((other, i) => {
                    const same = other.audit.find((e) => e[0] === entry[0]);
                    if (same && same.length > 8 && real(same[13]) > most) [most, of] = [real(same[13]), i];
                });
            }
            const verdict = entry.slice(1, 6), checked = verdict.reduce((a, b) => a + b, 0);
            const known = entry.length > 8;
            return {
                id,
                form,
                provenance,
                text,
                conditions,
                source,
                of,
                checked,
                verdict,
                median: real(entry[6]),
                use: known ? real(entry[13]) : real(entry[7]),
                query: known ? entry[8] : -1,
                closest: known ? verdicts[entry[9]] : "",
                upper: known ? entry[10] === 1 : true,
                measured: known ? real(entry[11]) : NaN,
                limit: known ? real(entry[12]) : NaN
            };
        });
    }
    const auditCells =
        (row) => [row.id, row.form, row.checked, ...row.verdict, row.median, row.use, row.query, row.text];
    function closestText(row) {
        if (!row.closest) return "";
        return row.closest + ": " + show(row.measured) + (row.closest === "violated" ? " is not " : " ") +
               (row.upper ? "≤ " : "≥ ") + show(row.limit);
    }
    function auditShown() {
        const wanted = byId("audit-show").value, part = byId("audit-filter").value.toLowerCase();
        const rows = auditRows().filter(
            (row) =>
                (wanted === "all" || (wanted === "violated" ? row.verdict[4] > 0 : row.form === wanted)) &&
                (row.id + " " + row.text + " " + row.source + " " + row.conditions).toLowerCase().includes(part));
        if (auditSort.column >= 0)
            rows.sort((a, b) => {
                const x = auditCells(a)[auditSort.column], y = auditCells(b)[auditSort.column];
                const order = typeof x === "number" ? (Number.isNaN(x)   ? -1
                                                       : Number.isNaN(y) ? 1
                                                                         : x - y)
                              : x < y               ? -1
                              : x > y               ? 1
                                                    : 0;
                return auditSort.down ? -order : order;
            });
        return rows;
    }
    function drawAudit() {
        const rows = auditShown(), table = byId("audit-table"),
              focused = table.contains(document.activeElement) ? document.activeElement.dataset.column : null;
        const title = ([name, kind], i) => {
            const button = element("button", {type: "button", "data-column": i},
                                   name + (auditSort.column === i ? (auditSort.down ? " ▼" : " ▲") : ""));
            button.addEventListener("click", () => {
                auditSort.down = auditSort.column === i ? !auditSort.down : kind === "number";
                auditSort.column = i;
                drawAudit();
            });
            return element("th", {
                scope: "col",
                class: kind === "number" ? "number" : null,
                "aria-sort": auditSort.column === i ? (auditSort.down ? "descending" : "ascending") : "none"
            },
                           button);
        };
        const number = (x, name) =>
            element("td", {class: "number" + (name && x > 0 ? " " + name : "")}, Number.isNaN(x) ? "-" : show(x));
        table.replaceChildren(
            element("thead", {}, element("tr", {}, ...auditColumns.map(title))),
            element("tbody", {}, ...rows.map((row) => {
                const closest = element("td", {class: "closest"});
                if (row.closest && row.of >= 0) {
                    const place =
                        (byId("audit-scope").value === "head" ? "" : headName(data.heads[row.of]) + ", ") +
                        (row.query < 0 ? "whole head" : "query " + row.query);
                    const go = element("button", {type: "button"}, place);
                    go.addEventListener("click", () => {
                        openHead(row.of, true);
                        if (row.query >= 0) chooseQuery(row.query);
                    });
                    closest.append(go, " " + closestText(row));
                    if (row.closest === "violated") closest.classList.add("violated");
                }
                return element("tr", {}, element("th", {scope: "row", title: row.source}, row.id),
                               element("td", {class: "name", title: row.provenance}, row.form), number(row.checked),
                               number(row.verdict[0]), number(row.verdict[1]), number(row.verdict[2]),
                               number(row.verdict[3]), number(row.verdict[4], "violated"), number(row.median),
                               number(row.use), closest,
                               element("td", {class: "formula"}, row.text + " — " + row.conditions));
            })));
        byId("audit-count").textContent =
            !data.audited
                ? "The audit was left out (--parts)."
                : rows.length + " of " + auditRows().length + " statements." +
                      (data.unknown_rows > 0 ? " " + data.unknown_rows +
                                                   " rows are of a normaliser about whose rows nothing is stated."
                                             : "");
        if (focused !== null) table.querySelector("[data-column=\"" + focused + "\"]").focus();
    }
    function startAudit() {
        options(byId("audit-scope"), [["all", "all heads"], ["head", "the chosen head"]]);
        byId("audit-scope").addEventListener("change", drawAudit);
        byId("audit-show").addEventListener("change", drawAudit);
        byId("audit-filter").addEventListener("input", drawAudit);
        drawAudit();
    }

    // ---------------------------------------------------------------- tables to take away

    const csvNumber = (x) => (x === null || x === undefined || Number.isNaN(x) ? "" : String(x));
    const csv = (rows) =>
        rows.map((row) => row.map((cell) => {
                                 const text = typeof cell === "number"              ? csvNumber(cell)
                                              : cell === null || cell === undefined ? ""
                                                                                    : String(cell);
                                 return /[",\n\r]/.test(text) ? "\"" + text.replaceAll("\"", "\"\"") + "\"" : text;
                             })
                              .join(","))
            .join("\n") +
        "\n";
    const tables = {
        heads: () => {
            const selected = counts.flatMap((n) => selectionFigures.map((name) => [name, n]));
            return [
                ["batch", "layer", "head", ...data.figures, ...selected.map(([name, n]) => name + "@" + n)],
                ...data.heads.map((head) => [...head.place, ...head.mean.map(real),
                                             ...selected.map(([name, n]) => figureOf(head, name, n))])
            ];
        },
        pattern: () => {
            const rows = open(data.heads[state.head]).rows;
            return [
                ["batch", "layer", "head", "query", "key", "weight"],
                ...rows.flatMap((row, i) =>
                                    row.keys.map((key, j) => [...data.heads[state.head].place, data.shown[i], key,
                                                              Number(row.weights[j].toPrecision(4))]))
            ];
        },
        rows: () => {
            const head = data.heads[state.head], curves = open(head).curves;
            return [
                ["batch", "layer", "head", "query", ...curveNames],
                ...data.queries.map(
                    (query, i) => [...head.place, query,
                                   ...curveNames.map((name) => Number(curves[name][i].toPrecision(7)))])
            ];
        },
        selections: () => {
            const head = data.heads[state.head];
            return [
                ["batch", "layer", "head", "n", ...selectionNames],
                ...head.selections.map((entry) => [...head.place, ...entry.map(real)])
            ];
        },
        whatif: () => {
            const now = rowNow();
            return [
                ["figure", "as it was", now.normalizer + " at " + now.temperature + ", " + now.length + " keys"],
                ...whatIfTable
            ];
        },
        audit: () => [
            [
                "statement", "form", "provenance", "rows", "holds", "rounding", "vacuous", "undefined", "violated",
                "median", "use", "batch", "layer", "head", "query", "verdict", "measured", "limit"
            ],
            ...auditShown().map((row) => [row.id, row.form, row.provenance, row.checked, ...row.verdict, row.median,
                                          row.use, ...(row.of >= 0 ? data.heads[row.of].place : ["", "", ""]),
                                          row.query >= 0 ? row.query : "", row.closest, row.measured, row.limit])],
    };
    function copyText(text) {
        const tell = (done) => {
            byId("copied").textContent =
                done ? "Copied." : "The browser does not let a page copy; save the file instead.";
        };
        const byHand = () => {
            const area = element("textarea", {"aria-hidden": "true"}), before = document.activeElement;
            area.value = text;
            document.body.append(area);
            area.select();
            tell(document.execCommand("copy"));
            area.remove();
            if (before) before.focus();
        };
        if (navigator.clipboard && window.isSecureContext)
            navigator.clipboard.writeText(text).then(() => tell(true), byHand);
        else
            byHand();
    }
    function startTables() {
        document.addEventListener("click", (event) => {
            const button = event.target.closest("[data-copy], [data-save]");
            if (!button) return;
            if (button.dataset.copy) {
                copyText(csv(tables[button.dataset.copy]()));
                const text = button.textContent;
                button.textContent = "Copied";
                setTimeout(() => { button.textContent = text; }, 1200);
            } else {
                const name = {selections: "selection"}[button.dataset.save] || button.dataset.save;
                const link = element("a", {
                    download: name + ".csv",
                    href: URL.createObjectURL(new Blob([csv(tables[button.dataset.save]())], {type: "text/csv"}))
                });
                link.click();
                setTimeout(() => URL.revokeObjectURL(link.href), 10000);
            }
        });
    }

    // ---------------------------------------------------------------- start

    function startTexts() {
        const [batchCount, layerCount, headCount, queries, keys] = data.shape, first = data.heads[0];
        byId("input").textContent = plain(data.input);
        document.title = "Attention heads of " + plain(data.input);
        const own =
            [...new Set(data.heads.map((head) => head.normalizer + " at temperature " + show(head.temperature)))];
        byId("facts").textContent =
            (data.synthetic ? "Synthetic heads, not a trained model. " : "") + data.heads.length +
            " heads on this page, of " + (batchCount > 1 ? batchCount + " batches, " : "") + layerCount +
            " layers and " + headCount + " heads; " + queries + " queries, " + keys + " keys, from " + data.kind +
            "; " + own.slice(0, 3).join("; ") + (own.length > 3 ? "; ..." : "") + "." +
            (first.sink !== undefined ? " Beside a learned sink." : "");
        byId("notes").replaceChildren(
            ...[...data.assumptions.map((t) => ["taken", t]), ...data.found.map((t) => ["found", t]),
                ...data.warnings.map((t) => ["warning", t])]
                .map(([kind, text]) => element("li", {}, kind + ": ", element("bdi", {}, plain(text)))));
        byId("command").textContent = plain(data.command);
        byId("version").textContent = data.version;
        const figures = data.queries.length < queries
                            ? "Figures along the text are those of " + data.queries.length + " of " + queries +
                                  " queries, evenly spaced. "
                            : "";
        byId("dropped").textContent =
            "What is not on this page, which is kept below 8 MB: " + figures +
            (data.shown.length < queries ? "Patterns are those of " + data.shown.length + " queries. "
                                         : "Patterns are those of all queries. ") +
            "Of each row at most " + data.most_keys +
            " weights, the largest, each rounded to 1/255 of the root of the largest; weights below " +
            "1/260000 of it are left out. " +
            "All logits are here of " + data.whole.length + " of " + queries +
            " queries of each head, rounded to 24 bits below their largest. " +
            "Means and limits have 7 digits. The JSON and CSV of the report have everything.";
    }

    startTexts();
    startMap();
    startHead();
    startWhatIf();
    startAudit();
    startTables();
    openHead(0);
    let waiting = 0;
    const redraw = () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => openHead(state.head), 100);
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    let width = window.innerWidth;
    window.addEventListener("resize", () => {
        if (window.innerWidth !== width) redraw();
        width = window.innerWidth;
    });
    if (location.hash === "#selftest") {
        const {largest, figures, lines} = checkOneself();
        byId("selftest").textContent = "figures " + figures + "\nlargest " + largest + "\n" + lines.join("\n");
    }
})();
