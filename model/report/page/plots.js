// What the plots tell under the pointer, and picking a frame in them.

const startPlots = (plots, viewer) => {
  const byKey = Object.fromEntries(all("[data-plot]").map((element) => [element.dataset.plot, element]));
  const perSequence = Object.fromEntries(Object.entries(plots).filter(([key]) => key !== "all").map(([key, plot]) => [plot.points[0][0], key]));

  const tell = (tip, plot, at) => {
    const [sequence, frame] = plot.points[at];
    tip.replaceChildren(`${sequence} / ${frame}`, ...plot.lines.filter(({ values }) => values[at] !== undefined).map(({ label, colour, values }) => {
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = colour;
      return make("div", {}, swatch, values[at] === null ? `${label} –` : `${label} ${values[at].toFixed(2)} dB`);
    }));
  };

  const watch = (element, plot) => {
    const cursor = element.querySelector(".cursor"), tip = element.querySelector(".tip"), count = plot.points.length;
    const pointAt = (event) => {
      const box = element.getBoundingClientRect();
      return clamp(Math.floor(((event.clientX - box.left) / box.width) * count), 0, count - 1);
    };
    const move = (event) => {
      const at = pointAt(event), x = ((at + 0.5) / count) * 100;
      cursor.hidden = tip.hidden = false;
      cursor.style.left = `${x}%`;
      tell(tip, plot, at);
      tip.style.left = x < 50 ? `calc(${x}% + 10px)` : "auto";
      tip.style.right = x < 50 ? "auto" : `calc(${100 - x}% + 10px)`;
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerdown", move);
    element.addEventListener("pointerleave", () => { cursor.hidden = tip.hidden = true; });
    if (!viewer) return;
    element.classList.add("picks");
    element.addEventListener("click", (event) => {
      const [sequence, , index] = plot.points[pointAt(event)];
      if (viewer.show(sequence, index)) viewer.reveal();
    });
  };

  // The line at the frame that is looked at: the last point that begins no later.
  const mark = (key, picture) => {
    const { points } = plots[key], element = byKey[key];
    const at = points.findLastIndex(([sequence, , index]) => sequence === picture.sequence && index <= picture.index);
    const here = element?.querySelector(".here");
    if (!here) return;
    here.hidden = at < 0;
    here.style.left = `${((at + 0.5) / points.length) * 100}%`;
  };

  for (const [key, plot] of Object.entries(plots)) if (byKey[key]) watch(byKey[key], plot);
  if (!viewer) return;
  for (const circle of all("circle[data-sequence]")) {
    const { sequence, index } = circle.dataset;
    if (!viewer.isPictured(sequence, Number(index))) continue;
    circle.classList.add("pictured");
    circle.addEventListener("click", () => {
      viewer.show(sequence, Number(index));
      viewer.reveal();
    });
  }
  viewer.onShow((picture) => {
    const own = perSequence[picture.sequence];
    byId("charts").hidden = !own;
    byId("charts").querySelector("h3").textContent = picture.sequence;
    all("[data-of]", byId("charts")).forEach((element) => { element.hidden = element.dataset.of !== own; });
    for (const key of ["all", own]) if (key && plots[key]) mark(key, picture);
  });
};
