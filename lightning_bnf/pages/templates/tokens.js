(() => {
"use strict";
const source = document.getElementById("token-data");
if (!source) return;
const data = JSON.parse(source.textContent);
const NOT_SCORED = -32768, AT_ONCE = 8, TOKENS_AT_ONCE = 1500;
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
const lengths = new Uint16Array(bytes(data.lengths));
const runs = data.runs.map(run => {
  const moments = run.snapshots.map(s => ({name: s.name, step: s.step, odds: new Int16Array(bytes(s.odds))}));
  return {name: run.name, loss: run.loss, moments, start: (moments.find(m => m.name === "start") || {}).odds};
});
let first = 0;
const rows = data.rows.map((row, place) => {
  const answers = row.answers.map(answer => {
    const own = {...answer, first, place};
    first += answer.tokens;
    return own;
  });
  return {...row, place, answers, words: [row.prompt, ...row.answers.map(a => a.text)].join("\n").toLowerCase()};
});

// Of log-odds in thousandths.
const logp = o => { const x = o / 1000; return x >= 0 ? -Math.log1p(Math.exp(-x)) : x - Math.log1p(Math.exp(x)); };
const probability = o => 1 / (1 + Math.exp(-o / 1000));
const weight = (o, start) => Math.exp(Math.min(0, (o - start) / 1000));

const moments = ["start", "middle", "end"].filter(name => runs.some(run => run.moments.some(m => m.name === name)));
const at = (run, name) => run.moments.find(m => m.name === name) || run.moments[run.moments.length - 1];
const state = {colour: runs.some(run => run.start) ? "weight" : "probability", moment: moments[moments.length - 1],
  sort: "file", search: "", shown: AT_ONCE};

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
const number = (x, digits = 2) => (x > 0 ? "+" : x < 0 ? "\u2212" : "") + Math.abs(x).toFixed(digits);
const plain = (x, digits = 2) => (x < 0 ? "\u2212" : "") + Math.abs(x).toFixed(digits);
const percent = p => p >= .0995 ? (100 * p).toFixed(p > .9995 && p < 1 ? 2 : 0) + " %" : p >= .00095 ? (100 * p).toFixed(1) + " %" : p === 0 ? "0 %" : p.toExponential(1);

// Sums over the scored tokens of an answer.
const summary = (run, answer, name) => {
  const odds = at(run, name).odds, start = run.start;
  let n = 0, logps = 0, change = 0, ink = 0, alone = 0;
  for (let i = answer.first; i < answer.first + answer.tokens; i++) {
    if (odds[i] === NOT_SCORED) continue;
    n++;
    logps += logp(odds[i]);
    if (!start) continue;
    const w = weight(odds[i], start[i]);
    change += logp(odds[i]) - logp(start[i]);
    ink += w;
    if (w < .5) alone++;
  }
  return {n, logps: logps / n, change: change / n, weight: ink / n, alone: alone / n};
};
const mean = values => values.length ? values.reduce((a, b) => a + b, 0) / values.length : NaN;
const side = (run, row, label, name, what) =>
  mean(row.answers.filter(a => a.label === label).map(a => summary(run, a, name)[what]));
const margin = (run, row, name) => {
  const chosen = side(run, row, 1, name, "logps"), rejected = side(run, row, -1, name, "logps");
  return chosen - rejected;
};
const last = moments[moments.length - 1];
const SORTS = {
  file: () => 0,
  margin: row => margin(runs[0], row, last),
  margin_change: row => margin(runs[0], row, last) - margin(runs[0], row, moments[0]),
  chosen: row => side(runs[0], row, 1, last, "change"),
  rejected: row => side(runs[0], row, -1, last, "change"),
  weight: row => side(runs[0], row, -1, last, "weight"),
  length: row => -row.answers.reduce((n, a) => n + a.tokens + a.left_out, 0),
};

// How strongly the log-ratio is coloured: full at the 95th percentile of what training did, at least at 1 nat.
const reach = (() => {
  const sizes = [];
  for (const run of runs) if (run.start) {
    const odds = at(run, last).odds, stride = Math.max(1, Math.floor(odds.length / 20000));
    for (let i = 0; i < odds.length; i += stride) if (odds[i] !== NOT_SCORED) sizes.push(Math.abs(logp(odds[i]) - logp(run.start[i])));
  }
  sizes.sort((a, b) => a - b);
  return Math.max(1, Math.ceil(2 * (sizes[Math.floor(.95 * sizes.length)] || 0)) / 2);
})();

const paint = (token, run, i) => {
  const odds = at(run, state.moment).odds[i];
  token.classList.remove("up", "down", "p", "alone", "none");
  let a = 0;
  if (odds === NOT_SCORED || (state.colour !== "probability" && !run.start)) token.classList.add("none");
  else if (state.colour === "weight") {
    a = weight(odds, run.start[i]);
    if (a < .5) token.classList.add("alone");
  } else if (state.colour === "ratio") {
    const ratio = logp(odds) - logp(run.start[i]);
    a = Math.min(1, Math.abs(ratio) / reach);
    token.classList.add(ratio > 0 ? "up" : "down");
  } else {
    a = probability(odds);
    token.classList.add("p");
  }
  token.style.setProperty("--a", a.toFixed(3));
};

const described = (run, answer) => {
  const now = summary(run, answer, state.moment);
  const size = answer.tokens + answer.left_out;
  const parts = [`${size.toLocaleString("en")} token${size === 1 ? "" : "s"}`];
  if (!now.n) return parts[0];
  if (state.colour === "weight") parts.push(`mean weight ${plain(now.weight)}`, `${Math.round(100 * now.alone)} % left alone`);
  else if (state.colour === "ratio") parts.push(`${number(now.change)} nats a token since the start`);
  else parts.push(`${plain(now.logps)} nats a token`);
  return parts.join(" \u00b7 ");
};

const texts = new Map();  // element -> [run, answer]
const fill = (text, run, answer, from, to) => {
  let offset = 0;
  for (let i = answer.first; i < answer.first + from; i++) offset += lengths[i];
  const part = document.createDocumentFragment();
  for (let i = answer.first + from; i < answer.first + to; i++) {
    const token = make("span", "t");
    const piece = answer.text.slice(offset, offset + lengths[i]);
    offset += lengths[i];
    // A space in front stays bare: where a line breaks before the word it would hang coloured at the line's end.
    const space = /^ +(?=\S)/.exec(piece), bare = space ? space[0] : "";
    token.append(bare, make("span", "ink", piece.slice(bare.length).replace(/\n/g, "\u21b5\n")));
    if (!piece) token.classList.add("empty");
    token.dataset.i = i;
    token.tabIndex = -1;
    paint(token, run, i);
    part.append(token);
  }
  text.append(part);
  if (to < answer.tokens) {
    const more = make("button", "more", `show ${(answer.tokens - to).toLocaleString("en")} more tokens`);
    more.addEventListener("click", () => { more.remove(); fill(text, run, answer, to, answer.tokens); });
    text.append(more);
  } else if (answer.left_out) text.append(make("span", "soft", ` [${answer.left_out.toLocaleString("en")} more tokens are not in this page]`));
};
const drawAnswer = (run, answer) => {
  const kind = answer.label > 0 ? "chosen" : "rejected";
  const box = make("div", `answer ${kind}`);
  const label = make("div", "label");
  label.append(make("b", "", kind), make("span", "described", described(run, answer)));
  const text = make("div", "text");
  text.tabIndex = 0;
  text.dir = "auto";
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `${kind} answer, ${answer.tokens} tokens; arrow keys go through them`);
  texts.set(text, [run, answer]);
  fill(text, run, answer, 0, Math.min(answer.tokens, TOKENS_AT_ONCE));
  box.append(label, text);
  return box;
};
const drawRow = row => {
  const box = make("article", "row");
  box.dataset.row = row.place;
  const numbers = make("div", "numbers");
  numbers.textContent = rowNumbers(row);
  const prompt = make("div", "prompt", row.prompt);
  prompt.dir = "auto";
  box.append(numbers, prompt);
  for (const run of runs) {
    const part = runs.length > 1 ? make("div", "run") : box;
    if (part !== box) {
      const name = make("h3", "", run.name);
      name.style.color = `var(--run-${runs.indexOf(run) % 8})`;
      part.append(name);
    }
    const sides = make("div", "sides");
    sides.append(...row.answers.map(answer => drawAnswer(run, answer)));
    part.append(sides);
    if (part !== box) box.append(part);
  }
  return box;
};
const rowNumbers = row => {
  const parts = [`row ${row.place + 1}`];
  if (runs.length === 1 && !Number.isNaN(margin(runs[0], row, last))) {
    parts.push(`margin ${plain(margin(runs[0], row, moments[0]))} \u2192 ${plain(margin(runs[0], row, last))} nats a token`);
  }
  return parts.join(" \u00b7 ");
};

// The page's elements
const root = document.getElementById("token-view");
const list = root.querySelector(".rows"), count = root.querySelector(".count"), more = root.querySelector(":scope > .more");
const legend = root.querySelector(".legend"), means = root.querySelector(".means");
const choice = (name, values, key) => {
  const box = root.querySelector(`[data-choice=${name}]`);
  box.replaceChildren(...values.map(([value, label, note]) => {
    const button = make("button", "", label);
    button.type = "button";
    button.dataset.value = value;
    if (note) button.append(" ", make("small", "", note));
    button.setAttribute("aria-pressed", String(state[key] === value));
    button.addEventListener("click", () => {
      state[key] = value;
      for (const other of box.children) other.setAttribute("aria-pressed", String(other === button));
      recolour();
    });
    return button;
  }));
};
const known = runs.some(run => run.start);
choice("colour", [...(known ? [["weight", "BNF\u2019s weight"], ["ratio", "log-ratio"]] : []), ["probability", "probability"]], "colour");
choice("moment", moments.map(name => [name, name, runs.length === 1 ? `step ${at(runs[0], name).step}` : ""]), "moment");

const scale = (paints, from, to) => {
  const box = make("span", "scale");
  const strip = make("i");
  strip.style.background = `linear-gradient(to right, ${paints.join(", ")})`;
  box.append(from, strip, to);
  return box;
};
const mixed = (hue, share) => `color-mix(in srgb, var(--${hue}) calc(${share} * var(--fill)), transparent)`;
const drawLegend = () => {
  const start = mixed("chosen", 0);
  if (state.colour === "weight") {
    const both = make("span", "strips");
    for (const kind of ["chosen", "rejected"]) {
      const strip = make("i");
      strip.style.background = `linear-gradient(to right, ${mixed(kind, 0)}, ${mixed(kind, 1)})`;
      both.append(strip);
    }
    const box = make("span", "scale"), low = make("b", "", "0"), high = make("b", "", "1");
    box.append(low, " left alone ", both, high, " learns as in fine-tuning");
    const sample = make("span", "t alone"), note = make("span", "soft");
    sample.append(make("span", "ink", "pale and dotted"));
    note.append(sample, ": weight below 0.5");
    legend.replaceChildren(box, note);
  } else if (state.colour === "ratio") {
    legend.replaceChildren(scale([mixed("rejected", 1), start, mixed("chosen", 1)], `\u2212${reach} nats or less: lowered`, `raised: +${reach} or more`));
  } else legend.replaceChildren(scale([mixed("probability", 0), mixed("probability", 1)], "0 %", "100 %"));
};
const drawMeans = () => {
  means.replaceChildren();
  for (const run of runs) for (const [label, kind] of [[1, "chosen"], [-1, "rejected"]]) {
    const found = rows.flatMap(row => row.answers.filter(a => a.label === label).map(a => summary(run, a, state.moment))).filter(s => s.n);
    if (!found.length) continue;
    const what = {weight: "weight", ratio: "change", probability: "logps"}[state.colour];
    const value = mean(found.map(s => s[what]));
    const share = state.colour === "weight" ? value : state.colour === "ratio" ? Math.min(1, Math.abs(value) / reach) : Math.exp(value);
    const meter = make("div", `meter ${kind}`);
    const full = make("i");
    full.style.width = `${(100 * share).toFixed(1)}%`;
    meter.append(full);
    const alone = Math.round(100 * mean(found.map(s => s.alone)));
    const words = state.colour === "weight" ? `mean weight ${plain(value)}, ${alone} % left alone` : state.colour === "ratio"
      ? `${number(value)} nats a token` : `${plain(value)} nats a token`;
    means.append(make("span", "", runs.length > 1 ? `${run.name}, ${kind}` : `all ${kind} tokens`), meter, make("span", "", words));
  }
};
const recolour = () => {
  for (const [text, [run, answer]] of texts) {
    for (const token of text.querySelectorAll(".t")) paint(token, run, Number(token.dataset.i));
    text.parentElement.querySelector(".described").textContent = described(run, answer);
  }
  drawLegend();
  drawMeans();
};
const draw = () => {
  hide();
  texts.clear();
  const found = rows.filter(row => row.words.includes(state.search));
  const key = new Map(found.map(row => [row, SORTS[state.sort](row)]));
  const place = row => Number.isNaN(key.get(row)) ? Infinity : key.get(row);
  found.sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b)) || a.place - b.place);
  const shown = found.slice(0, state.shown);
  list.replaceChildren(...shown.map(drawRow));
  count.textContent = found.length === rows.length ? `${rows.length} rows` : `${found.length} of ${rows.length} rows`;
  more.hidden = shown.length === found.length;
  more.textContent = `show ${Math.min(AT_ONCE, found.length - shown.length)} more rows`;
  drawLegend();
  drawMeans();
};
more.addEventListener("click", () => { state.shown += AT_ONCE; draw(); });
root.querySelector("input").addEventListener("input", event => { state.search = event.target.value.toLowerCase(); state.shown = AT_ONCE; draw(); });
root.querySelector("select").addEventListener("change", event => { state.sort = event.target.value; state.shown = AT_ONCE; draw(); });

// Numbers of a token, under the pointer or at the keyboard's place
const tip = document.getElementById("tip");
let marked = null;
const hide = () => { tip.hidden = true; if (marked) marked.classList.remove("at"); marked = null; };
const show = token => {
  const [run] = texts.get(token.closest(".text")) || [];
  if (!run) return;
  hide();
  marked = token;
  token.classList.add("at");
  const i = Number(token.dataset.i);
  const columns = run.moments.filter(m => m.odds[i] !== NOT_SCORED);
  const name = make("div", "token", JSON.stringify(token.textContent.replace(/\u21b5\n/g, "\n")));
  tip.replaceChildren(name);
  if (!columns.length) tip.append(make("div", "soft", "not trained on"));
  else {
    const table = make("table"), head = make("tr");
    head.append(make("th"), ...columns.map(m => make("th", "", m.name)));
    table.append(head);
    const line = (title, value) => {
      const row = make("tr");
      row.append(make("th", "", title), ...columns.map(m => make("td", "", value(m.odds[i]))));
      table.append(row);
    };
    line("probability", o => percent(probability(o)));
    line("log-prob (nats)", o => plain(logp(o)));
    if (run.start) {
      line("log-ratio", o => number(logp(o) - logp(run.start[i])));
      line("BNF\u2019s weight", o => weight(o, run.start[i]).toFixed(2));
    }
    tip.append(table);
  }
  tip.hidden = false;
  place();
};
const place = () => {
  if (!marked) return;
  const box = marked.getBoundingClientRect(), own = tip.getBoundingClientRect();
  if (box.bottom < 0 || box.top > innerHeight) { hide(); return; }
  const below = box.bottom + 8 + own.height < innerHeight;
  tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - own.width - 6))}px`;
  tip.style.top = `${below ? box.bottom + 8 : Math.max(6, box.top - own.height - 8)}px`;
};
list.addEventListener("pointerover", event => { const token = event.target.closest(".t"); if (token) show(token); else hide(); });
list.addEventListener("pointerleave", hide);
list.addEventListener("focusin", event => { const token = event.target.closest(".t"); if (token) show(token); });
list.addEventListener("focusout", hide);
addEventListener("scroll", place, {passive: true, capture: true});
addEventListener("resize", place);
list.addEventListener("keydown", event => {
  const text = event.target.closest(".text");
  if (!text) return;
  if (event.key === "Escape") { hide(); text.focus(); return; }
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!step) return;
  event.preventDefault();
  const tokens = [...text.querySelectorAll(".t")], now = tokens.indexOf(event.target);
  const next = tokens[Math.max(0, Math.min(tokens.length - 1, now < 0 ? 0 : now + step))];
  if (next) { next.focus({preventScroll: true}); next.scrollIntoView({block: "nearest"}); show(next); }
});
draw();
document.documentElement.dataset.ready = "true";
})();
