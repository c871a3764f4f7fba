"""The text of report.html around the numbers: page, style and script. It loads nothing from anywhere."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<header>
<p class="eyebrow">Evaluation report</p>
<h1>$heading</h1>
<p class="sub">$subheading</p>
</header>
<main>
<section class="tiles">$tiles</section>
$notes
<section>
<div class="bar"><h2>Summary</h2><span class="chip">$protocol</span></div>
$summary
<p class="fine">$definition. The mean over frames weighs every frame alike, the mean over sequences every sequence.</p>
</section>
<section>
<div class="bar"><h2>Look</h2><span class="chip">drag the line</span></div>
$viewer
</section>
<section>
<div class="bar"><h2>PSNR per frame</h2><span class="chip">$protocol</span></div>
$chart
</section>
<section>
<div class="bar"><h2>Per sequence</h2><span class="chip">$protocol</span></div>
$sequences
</section>
<section>
<div class="bar"><h2>How it was made</h2></div>
$provenance
</section>
</main>
<footer>$footer</footer>
<script type="application/json" id="chart-data">$chart_data</script>
<script>$script</script>
</body>
</html>
"""

STYLE = """
:root{--paper:#f6f6f4;--card:#fff;--ink:#17181c;--soft:#5c606b;--line:#e3e3df;--accent:#2f5fe0;--tint:#eef2fd;
--good:#16794a;--bad:#b3362b;--m0:#2f5fe0;--m1:#d9822b;--m2:#8f939d;--m3:#0f9b8e;--m4:#a347ba;--m5:#c23b5e}
@media(prefers-color-scheme:dark){:root{--paper:#111216;--card:#191b21;--ink:#eceef2;--soft:#9a9fac;--line:#2b2e37;
--accent:#84a6ff;--tint:#1d2436;--good:#5fd19a;--bad:#ff8f84;--m0:#84a6ff;--m1:#f0a557;--m2:#7d828e;--m3:#4fd0c3;
--m4:#d38ae6;--m5:#f07f9c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
header,main,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:40px;padding-bottom:8px}
h1{font-size:clamp(24px,4.4vw,36px);line-height:1.15;letter-spacing:-.02em;margin:2px 0 6px;overflow-wrap:anywhere}
h2{font-size:18px;letter-spacing:-.01em;margin:0}
.eyebrow{margin:0;color:var(--accent);font-weight:600;font-size:13px}
.sub,.fine,footer{color:var(--soft)}
.sub{margin:0;overflow-wrap:anywhere}
.fine{font-size:13px;margin:10px 0 0;max-width:78ch}
section{margin:18px 0;background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 20px}
.bar{display:flex;gap:10px;align-items:center;margin-bottom:14px;flex-wrap:wrap}
.chip{font-size:12px;line-height:1;color:var(--soft);border:1px solid var(--line);border-radius:99px;padding:5px 9px;
white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:0;padding:0;overflow:hidden}
.tile{padding:18px 20px;border-left:1px solid var(--line)}
.tile:first-child{border-left:0;background:var(--tint)}
.tile b{display:block;font-size:clamp(22px,3.6vw,32px);line-height:1.15;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;font-weight:650}
.tile b small{font-size:.5em;font-weight:500;color:var(--soft);letter-spacing:0;margin-left:.25em}
.tile span{display:block;color:var(--soft);font-size:13px}
.note{background:var(--tint);border-color:transparent;font-size:14px;padding:12px 20px}
.note p{margin:2px 0}
.scroll{overflow-x:auto;margin:0 -20px;padding:0 20px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:8px 0 8px 18px;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
tbody tr:last-child>*{border-bottom:0}
thead th{color:var(--soft);font-size:12.5px;vertical-align:bottom;line-height:1.3}
th:first-child,td:first-child{text-align:left;padding-left:0}
tbody th small{display:block;color:var(--soft);font-size:12.5px;white-space:normal}


td.best{font-weight:650}
td.gain{color:var(--good)}td.loss{color:var(--bad)}
.swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
td.meter{width:26%;min-width:90px}
.meter div{height:2px;background:var(--line);position:relative;margin:0 12px}
.meter i{position:absolute;top:-5px;width:12px;height:12px;margin-left:-6px;border-radius:50%}
.wide th:first-child{position:sticky;left:0;background:var(--card);padding-right:14px;z-index:1}
.controls{display:flex;gap:8px 14px;align-items:center;flex-wrap:wrap;margin-bottom:12px;font-size:14px}
.controls label{color:var(--soft)}
select,button.plain{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:5px 9px;margin-left:6px;min-height:34px}
button.plain{margin:0;cursor:pointer}
button.plain[aria-pressed=true]{background:var(--accent);border-color:var(--accent);color:var(--card)}
.group{display:inline-flex}
.group button{border-radius:0;margin-left:-1px}
.group button:first-child{border-radius:8px 0 0 8px}.group button:last-child{border-radius:0 8px 8px 0}
.stage{overflow:auto;border-radius:10px;background:#0c0d10;max-height:82vh;margin:0 auto}
.frame{position:relative;user-select:none;-webkit-user-select:none;cursor:ew-resize;touch-action:pan-y;overflow:hidden}
.zoomed .frame{touch-action:auto;cursor:default}
.frame img{display:block;width:100%;height:100%;position:absolute;inset:0;pointer-events:none}
.pixels img{image-rendering:pixelated}
.diff .right{mix-blend-mode:difference}
.diff .frame{filter:brightness(5);cursor:default}
.diff .handle,.diff .tag{display:none}
.handle{position:absolute;top:0;bottom:0;width:44px;margin-left:-22px;cursor:ew-resize;touch-action:none}
.handle::before{content:"";position:absolute;left:21px;top:0;bottom:0;width:2px;background:#fff;
box-shadow:0 0 0 1px #0006}
.handle::after{content:"\\2039\\00a0\\203a";position:absolute;left:6px;top:50%;margin-top:-16px;width:32px;height:32px;
line-height:28px;text-align:center;border-radius:50%;background:#fff;color:#222;font-size:18px;
box-shadow:0 1px 6px #0007}
.handle:focus-visible{outline:3px solid var(--accent);outline-offset:-3px}
.tag{position:absolute;top:10px;background:#000a;color:#fff;font-size:12.5px;padding:2px 9px;border-radius:99px}
.tag.l{left:10px}.tag.r{right:10px}
.caption{margin:10px 0 16px;font-size:14px;overflow-wrap:anywhere}
.caption span{color:var(--soft);white-space:nowrap;margin-left:12px;font-variant-numeric:tabular-nums}
h3{font-size:13px;font-weight:600;color:var(--soft);margin:14px 0 8px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px}
.card{font:inherit;text-align:left;color:inherit;background:none;border:0;padding:0;cursor:pointer;min-width:0}
.pair{display:flex;border-radius:8px;overflow:hidden;outline:1px solid var(--line);background:#0c0d10}
.pair img{width:50%;aspect-ratio:1;object-fit:cover;display:block}
.pair img[hidden]{display:none}
.card[aria-current=true] .pair{outline:3px solid var(--accent)}
.card:focus-visible{outline:none}.card:focus-visible .pair{outline:3px solid var(--ink)}
.card p{margin:6px 0 0;font-size:13px;line-height:1.35;overflow-wrap:anywhere}
.card p span{display:block;color:var(--soft);font-variant-numeric:tabular-nums}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px;margin-bottom:10px}
.plot{position:relative;height:260px;margin:6px 0 26px 40px}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.plot svg line{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.plot svg path{fill:none;stroke-width:1.75;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.plot .y{position:absolute;right:100%;margin-right:8px;transform:translateY(-50%);font-size:12px;color:var(--soft);
font-variant-numeric:tabular-nums;white-space:nowrap}
.plot .x{position:absolute;top:100%;margin-top:7px;font-size:12px;color:var(--soft);transform:translateX(-50%);
white-space:nowrap;overflow:hidden;text-overflow:ellipsis;text-align:center;line-height:1.3}
.cursor{position:absolute;top:0;bottom:0;width:1px;background:var(--soft);pointer-events:none}
.tip{position:absolute;top:6px;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:6px 10px;
font-size:12.5px;line-height:1.5;pointer-events:none;white-space:nowrap;box-shadow:0 3px 12px #0002;
font-variant-numeric:tabular-nums;z-index:2}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:6px 20px;margin:0 0 14px;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
details{border-top:1px solid var(--line);padding:9px 0}
summary{cursor:pointer;font-size:14px}
pre{overflow:auto;background:var(--paper);border-radius:8px;padding:12px;margin:10px 0 4px;max-height:420px}
footer{font-size:13px;padding-bottom:44px}
[hidden]{display:none!important}
@media(max-width:720px){.tiles{grid-template-columns:1fr 1fr}.tile{padding:14px 16px}.tile:nth-child(3){border-left:0}
.tile:nth-child(n+3){border-top:1px solid var(--line)}section{padding:16px}header,main,footer{padding-left:14px;
padding-right:14px}header{padding-top:26px}.scroll{margin:0 -16px;padding:0 16px}.summary td.meter,.summary
th.meter{display:none}.cards{grid-template-columns:repeat(auto-fill,minmax(132px,1fr))}.plot{height:210px;margin-left:32px}
dl{grid-template-columns:1fr;gap:0 0}dd{margin-bottom:8px}th,td{padding-left:14px}}
@media print{.controls,.handle{display:none}section{break-inside:avoid}}
"""

SCRIPT = """
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (viewer) {
    const pick = (name) => viewer.querySelector(name);
    const stage = pick(".stage"), frame = pick(".frame"), handle = pick(".handle");
    const sides = { left: pick("img.left"), right: pick("img.right") };
    const choose = { left: pick("#choose-left"), right: pick("#choose-right") };
    const cards = [...viewer.querySelectorAll(".card")];
    let card = cards[0], zoom = 1;
    const images = () => Object.fromEntries([...card.querySelectorAll("img")].map((i) => [i.dataset.method, i]));
    const cut = (percent) => {
      const at = Math.min(100, Math.max(0, percent));
      sides.right.style.clipPath = stage.classList.contains("diff") ? "none" : `inset(0 0 0 ${at}%)`;
      handle.style.left = `${at}%`;
      handle.setAttribute("aria-valuenow", Math.round(at));
    };
    const position = () => parseFloat(handle.style.left);
    const options = (select, wanted, there) => {
      select.replaceChildren(...Object.values(there).map((i) => new Option(i.alt, i.dataset.method)));
      select.value = wanted in there ? wanted : Object.keys(there)[0];
    };
    const size = () => {
      const ratio = card.dataset.width / card.dataset.height;
      const base = Math.min(viewer.clientWidth, 0.72 * innerHeight * ratio, 8 * card.dataset.width);
      stage.style.width = `${base}px`;
      frame.style.width = `${base * zoom}px`;
      frame.style.height = `${base * zoom / ratio}px`;
      stage.classList.toggle("pixels", base * zoom > 1.5 * card.dataset.width);
      stage.classList.toggle("zoomed", zoom > 1);
    };
    const show = () => {
      const there = images();
      for (const side of ["left", "right"]) {
        options(choose[side], choose[side].value || viewer.dataset[side], there);
        const image = there[choose[side].value];
        sides[side].src = image.src;
        sides[side].alt = image.alt;
        pick(side === "left" ? ".tag.l" : ".tag.r").textContent = image.alt;
      }
      const caption = pick(".caption");
      caption.replaceChildren(card.dataset.name);
      for (const score of card.dataset.scores.split("|").filter(Boolean)) {
        const part = document.createElement("span");
        part.textContent = score;
        caption.append(part, " ");
      }
      cards.forEach((other) => other.setAttribute("aria-current", other === card));
      size();
      cut(position());
    };
    cards.forEach((other) => other.addEventListener("click", () => {
      card = other;
      show();
      stage.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }));
    for (const side of ["left", "right"]) choose[side].addEventListener("change", show);
    viewer.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
      const middle = [(stage.scrollLeft + stage.clientWidth / 2) / frame.offsetWidth,
        (stage.scrollTop + stage.clientHeight / 2) / frame.offsetHeight];
      zoom = Number(button.dataset.zoom);
      viewer.querySelectorAll("[data-zoom]").forEach((b) => b.setAttribute("aria-pressed", b === button));
      size();
      stage.scrollTo(middle[0] * frame.offsetWidth - stage.clientWidth / 2,
        middle[1] * frame.offsetHeight - stage.clientHeight / 2);
    }));
    pick("#difference").addEventListener("click", (event) => {
      const on = stage.classList.toggle("diff");
      event.currentTarget.setAttribute("aria-pressed", on);
      cut(position());
    });
    const follow = (event) => {
      const box = frame.getBoundingClientRect();
      cut(100 * (event.clientX - box.left) / box.width);
    };
    let dragging = false;
    frame.addEventListener("pointerdown", (event) => {
      if (zoom > 1 && event.target !== handle) return;
      dragging = true;
      frame.setPointerCapture(event.pointerId);
      follow(event);
    });
    frame.addEventListener("pointermove", (event) => { if (dragging) follow(event); });
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => { dragging = false; });
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
      if (step) { event.preventDefault(); cut(position() + step); }
    });
    addEventListener("resize", size);
    cut(50);
    show();
  }

  const plot = document.querySelector(".plot");
  if (plot) {
    const data = JSON.parse(document.getElementById("chart-data").textContent);
    const cursor = plot.querySelector(".cursor"), tip = plot.querySelector(".tip");
    const hide = () => { cursor.hidden = tip.hidden = true; };
    plot.addEventListener("pointerleave", hide);
    const move = (event) => {
      const box = plot.getBoundingClientRect(), count = data.names.length;
      const at = Math.min(count - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * count)));
      const x = (at + 0.5) / count * 100;
      cursor.hidden = tip.hidden = false;
      cursor.style.left = `${x}%`;
      tip.replaceChildren(data.names[at]);
      for (const line of data.lines) {
        const row = document.createElement("div"), swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = line.colour;
        const value = line.values[at];
        row.append(swatch, `${line.label} ${value === null ? "\\u221e" : value.toFixed(2)} dB`);
        tip.append(row);
      }
      tip.style.left = x < 50 ? `calc(${x}% + 10px)` : "auto";
      tip.style.right = x < 50 ? "auto" : `calc(${100 - x}% + 10px)`;
    };
    plot.addEventListener("pointermove", move);
    plot.addEventListener("pointerdown", move);
  }
})();
"""
