// The frame that is looked at: which pictures of it, how they are compared, and what is said about it.

const SIDE_BY_SIDE = 6; // panels at most

// frames: the data of all frames. pictures: the frames with pictures, in order.
const startViewer = (frames, pictures) => {
  const titles = Object.fromEntries(frames.methods.map(({ name, title }) => [name, title]));
  const titleOf = (key) => (key.startsWith(ERROR) ? `Error: ${titles[key.slice(ERROR.length)]}` : titles[key]);
  const sequenceOf = Object.fromEntries(frames.sequences.map((sequence) => [sequence.name, sequence]));
  const view = new View(() => changed());
  const stage = new Stage(byId("stage"), view);
  const choose = { left: byId("left"), right: byId("right") };
  const chosen = { left: "blurry", right: "restored" };
  const shown = new Set(["blurry", "restored", "sharp", `${ERROR}restored`]);
  const listeners = [];
  let at = 0, mode = "slider";

  const changed = () => {
    stage.follow();
    if (!stage.picture) return;
    byId("zoom").value = `${Math.round(100 * stage.scale)}%`;
    byId("smaller").disabled = byId("fit").disabled = view.zoom <= 1;
    byId("larger").disabled = view.zoom >= view.most;
  };

  const scores = (picture, method) => sequenceOf[picture.sequence].psnrs[method]?.[picture.index];
  const label = (picture, key) => {
    const score = key.startsWith(ERROR) ? "" : decibels(scores(picture, key));
    return score ? `${titleOf(key)}  ${score}` : titleOf(key);
  };

  // A button that puts a picture beside the others, or takes it away.
  const chip = (key) => {
    const button = make("button", { className: "plain chip-button", textContent: titles[key.replace(ERROR, "")] });
    button.dataset.chip = key;
    press(button, shown.has(key));
    button.addEventListener("click", () => {
      if (!shown.delete(key)) shown.add(key);
      draw();
    });
    return button;
  };

  const options = (picture) => {
    const keys = keysOf(picture);
    for (const [side, select] of Object.entries(choose)) {
      select.replaceChildren(...keys.map((key) => new Option(titleOf(key), key)));
      select.value = keys.includes(chosen[side]) ? chosen[side] : keys[0];
    }
    const focused = document.activeElement?.dataset.chip;
    for (const [id, errors] of [["chips", false], ["error-chips", true]]) {
      byId(id).replaceChildren(...keys.filter((key) => key.startsWith(ERROR) === errors).map(chip));
    }
    if (focused) all("[data-chip]").find((button) => button.dataset.chip === focused)?.focus();
  };

  const panels = (picture) => {
    const layer = (key) => ({ key, label: label(picture, key) });
    if (mode === "slider") return [[layer(choose.left.value), layer(choose.right.value)]];
    const keys = keysOf(picture).filter((key) => shown.has(key)).slice(0, SIDE_BY_SIDE);
    return (keys.length ? keys : ["restored"]).map((key) => [layer(key)]);
  };

  // Draw the frame anew after a choice.
  const draw = () => {
    const picture = pictures[at];
    options(picture);
    stage.show(picture, panels(picture));
    all("[data-mode]").forEach((button) => press(button, button.dataset.mode === mode));
    all(".when-slider").forEach((element) => { element.hidden = mode !== "slider"; });
    all(".when-grid").forEach((element) => { element.hidden = mode !== "grid"; });
    byId("scale").hidden = !byId("stage").querySelector(".error");
  };

  const places = (picture) => picture.patches.map((patch) => {
    const button = make("button", { className: "plain", textContent: `${patch.reason[0].toUpperCase()}${patch.reason.slice(1)}` });
    button.addEventListener("click", () => view.set(
      Math.min(picture.width / patch.width, picture.height / patch.height),
      (patch.left + patch.width / 2) / picture.width,
      (patch.top + patch.height / 2) / picture.height,
    ));
    return button;
  });

  const describe = (picture) => {
    const restored = scores(picture, "restored"), gain = gainOf(restored, scores(picture, "blurry"));
    const words = decibels(restored) || "not scored";
    byId("caption").replaceChildren(
      make("b", { textContent: `${picture.sequence} / ${picture.frame}` }),
      gain !== null ? `${words}, ${signed(gain)} over blurry` : words,
    );
    byId("why").textContent = `Pictured for: ${picture.reasons.join(", ")}`;
    byId("places").replaceChildren(...places(picture));
  };

  // Show the pictured frame with a number.
  const show = (number) => {
    const other = pictures[number].sequence !== pictures[at].sequence;
    at = number;
    draw();
    if (other) view.fit();
    describe(pictures[at]);
    listeners.forEach((listener) => listener(pictures[at]));
  };

  const step = (by) => show((at + by + pictures.length) % pictures.length);

  for (const [side, select] of Object.entries(choose)) {
    select.addEventListener("change", () => {
      chosen[side] = select.value;
      draw();
    });
  }
  byId("swap").addEventListener("click", () => {
    [chosen.left, chosen.right] = [choose.right.value, choose.left.value];
    draw();
  });
  all("[data-mode]").forEach((button) => button.addEventListener("click", () => {
    mode = button.dataset.mode;
    draw();
  }));
  byId("smaller").addEventListener("click", () => view.zoomBy(1 / 1.5));
  byId("larger").addEventListener("click", () => view.zoomBy(1.5));
  byId("fit").addEventListener("click", () => view.fit());
  const scaled = () => byId("stage").style.setProperty("--boost", String(255 / Number(byId("most").value)));
  byId("most").addEventListener("change", scaled);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("stage").addEventListener("keydown", (event) => {
    if (event.key === "," || event.key === ".") step(event.key === "," ? -1 : 1);
  });
  scaled();
  stage.listen();

  const numberOf = (sequence, index) => pictures.findIndex((p) => p.sequence === sequence && p.index === index);
  return {
    onShow: (listener) => listeners.push(listener),
    // Begin with a frame of everyday quality.
    start: () => show(Math.max(0, pictures.findIndex((p) => p.reasons.some((reason) => reason.startsWith("middle"))))),
    step,
    isPictured: (sequence, index) => numberOf(sequence, index) >= 0,
    // Show a frame of a sequence: itself, or the nearest that has pictures. False where the sequence has none.
    show: (sequence, index) => {
      const near = pictures.map((p, number) => [Math.abs(p.index - index), number, p.sequence]).filter(([, , name]) => name === sequence);
      if (!near.length) return false;
      show(near.reduce((best, one) => (one[0] < best[0] ? one : best))[1]);
      return true;
    },
    reveal: () => byId("look").scrollIntoView({ block: "start", behavior: smoothly }),
  };
};
