// The filmstrip: small pictures of the frames of a sequence, of which those with large pictures can be chosen.

const startStrip = (frames, viewer) => {
  const strip = byId("strip"), select = byId("sequence");
  const sequences = Object.fromEntries(frames.sequences.map((sequence) => [sequence.name, sequence]));
  let current = null;

  const thumb = (sequence, { frame, index, image: source }) => {
    const gain = gainOf(sequence.psnrs.restored?.[index], sequence.psnrs.blurry?.[index]);
    const about = make("span", {}, make("span", { textContent: frame }));
    if (gain !== null) about.append(make("span", { textContent: signed(gain), className: gain < 0 ? "loss" : "" }));
    const button = make("button", { className: "thumb", tabIndex: -1, disabled: !viewer.isPictured(sequence.name, index) },
      make("img", { src: source, alt: "" }), about);
    if (button.disabled) button.title = "no large picture of this frame";
    button.dataset.index = index;
    button.addEventListener("click", () => viewer.show(sequence.name, index));
    return button;
  };

  const fill = (name) => {
    current = select.value = name;
    strip.replaceChildren(...sequences[name].thumbnails.map((one) => thumb(sequences[name], one)));
  };

  const mark = (picture) => {
    if (picture.sequence !== current) fill(picture.sequence);
    for (const button of strip.children) {
      const here = Number(button.dataset.index) === picture.index;
      button.setAttribute("aria-current", String(here));
      button.tabIndex = here ? 0 : -1;
      // Scrolls the strip only, never the page.
      if (here) strip.scrollTo({ left: button.offsetLeft - strip.offsetLeft - (strip.clientWidth - button.clientWidth) / 2, behavior: smoothly });
    }
  };

  select.addEventListener("change", () => {
    const { name, frames: count } = sequences[select.value];
    if (!viewer.show(name, Math.floor(count / 2))) fill(name);
  });
  strip.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    viewer.step(by);
    strip.querySelector("[aria-current=true]")?.focus();
  });
  viewer.onShow(mark);
};
