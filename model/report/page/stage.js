// The panels: one with a line between two pictures, or several side by side. All follow one view.

const ERROR = "error:";
const LEAST_HEIGHT = 220; // of the stage, in screen pixels
const NARROW = 640; // below it panels may take all of the screen's height
const LARGEST = 12; // screen pixels that a pixel of a small frame may take when all of it is seen

// Pictures of a frame by key: a method, or ERROR and a method for its error map.
const keysOf = (picture) => [...Object.keys(picture.images), ...Object.keys(picture.errors).map((name) => ERROR + name)];

class Stage {
  constructor(element, view) {
    Object.assign(this, { element, view, picture: null, windows: [], line: 50 });
    this.handle = make("div", { className: "handle", tabIndex: 0 });
    this.handle.setAttribute("role", "slider");
    this.handle.setAttribute("aria-label", "line between the pictures");
    this.handle.setAttribute("aria-valuemin", "0");
    this.handle.setAttribute("aria-valuemax", "100");
    this.handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      this.cut(this.line + step);
    });
  }

  // panels: a list of lists of {key, label}: two of them in one panel are cut by the line.
  show(picture, panels) {
    this.picture = picture;
    const slider = panels.length === 1 && panels[0].length === 2;
    this.element.classList.toggle("slider", slider);
    this.windows = panels.map((layers) => {
      const panel = make("div", { className: "window" });
      layers.forEach(({ key, label }, i) => panel.append(this.layer(key, label), this.tag(label, i === 1)));
      if (slider) panel.append(this.handle);
      return panel;
    });
    this.element.replaceChildren(...this.windows);
    this.arrange();
    this.cut(this.line);
  }

  layer(key, label) {
    const { picture } = this, error = key.startsWith(ERROR), name = error ? key.slice(ERROR.length) : key;
    const kind = error ? "errors" : "images";
    const world = make("div", { className: "world" });
    world.style.width = `${picture.width}px`;
    world.style.height = `${picture.height}px`;
    world.append(image(picture[kind][name], label, [0, 0, picture.width, picture.height], picture.exact));
    for (const patch of picture.patches) {
      world.append(image(patch[kind][name], "", [patch.left, patch.top, patch.width, patch.height], true));
    }
    const layer = make("div", { className: error ? "layer error" : "layer" }, world);
    layer.dataset.key = key;
    return layer;
  }

  tag(label, right) {
    return make("span", { className: right ? "tag right" : "tag", textContent: label });
  }

  // Choose the number of columns that makes panels largest, and give them their size.
  arrange() {
    if (!this.picture) return;
    const ratio = this.picture.width / this.picture.height, count = this.windows.length, gap = 6;
    const width = this.element.parentElement.clientWidth;
    const height = Math.max(LEAST_HEIGHT, (width < NARROW ? 0.95 : 0.74) * innerHeight);
    let best = 0, columns = 1;
    for (let tried = 1; tried <= count; tried++) {
      const rows = Math.ceil(count / tried);
      const across = Math.min((width - gap * (tried - 1)) / tried, ((height - gap * (rows - 1)) / rows) * ratio);
      if (across > best) [best, columns] = [across, tried];
    }
    this.width = Math.floor(Math.min(best, LARGEST * this.picture.width));
    this.height = Math.round(this.width / ratio);
    this.element.style.gridTemplateColumns = `repeat(${columns}, ${this.width}px)`;
    for (const panel of this.windows) {
      panel.style.width = `${this.width}px`;
      panel.style.height = `${this.height}px`;
    }
    this.view.limit(this.picture.width, this.width);
  }

  get scale() {
    return (this.width / this.picture.width) * this.view.zoom;
  }

  // Put every picture where the view says.
  follow() {
    if (!this.picture) return;
    const { view, scale } = this, { width, height } = this.picture;
    const left = this.width / 2 - view.x * width * scale, top = this.height / 2 - view.y * height * scale;
    for (const world of all(".world", this.element)) world.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    this.element.classList.toggle("zoomed", view.zoom > 1);
    this.element.classList.toggle("pixels", scale * devicePixelRatio >= 2);
    this.outline(left, top, scale);
  }

  // Mark the places that keep every pixel, while they are small enough to need it.
  outline(left, top, scale) {
    all(".mark", this.element).forEach((mark) => mark.remove());
    for (const panel of this.windows) {
      for (const patch of this.picture.patches) {
        if (Math.max((patch.width * scale) / this.width, (patch.height * scale) / this.height) > 0.9) continue;
        const mark = make("span", { className: "mark" });
        mark.style.left = `${left + patch.left * scale}px`;
        mark.style.top = `${top + patch.top * scale}px`;
        mark.style.width = `${patch.width * scale}px`;
        mark.style.height = `${patch.height * scale}px`;
        panel.append(mark);
      }
    }
  }

  // Move the line to a percentage of the panel's width.
  cut(percent) {
    this.line = clamp(percent, 0, 100);
    const [left, right] = all(".layer", this.element);
    this.handle.style.left = `${this.line}%`;
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.line)));
    if (!this.element.classList.contains("slider")) return;
    left.style.clipPath = `inset(0 ${100 - this.line}% 0 0)`;
    right.style.clipPath = `inset(0 0 0 ${this.line}%)`;
  }

  // Where a pointer is in its panel, from 0 to 1; in the first panel where it is in none.
  place(event) {
    const under = this.windows.map((panel) => panel.getBoundingClientRect());
    const box = under.find((b) => event.clientX >= b.left && event.clientX <= b.right && event.clientY >= b.top && event.clientY <= b.bottom) ?? under[0];
    return { across: (event.clientX - box.left) / box.width, down: (event.clientY - box.top) / box.height };
  }

  // Wheel, drag, pinch, double click and keys.
  listen() {
    const { element, view } = this, pointers = new Map();
    let cutting = false;
    element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !element.contains(document.activeElement)) return; // the page scrolls on
      event.preventDefault();
      const { across, down } = this.place(event);
      view.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), across, down);
    }, { passive: false });
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pointers.set(event.pointerId, event);
      element.setPointerCapture(event.pointerId);
      cutting = element.classList.contains("slider") && (view.zoom === 1 || event.target === this.handle);
      if (cutting && pointers.size === 1) this.cut(100 * this.place(event).across);
      element.classList.toggle("moving", !cutting);
    });
    element.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      if (pointers.size === 2) {
        const other = [...pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
        const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
        const middle = this.place({ clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
        view.zoomBy(apart(event) / Math.max(1, apart(before)), middle.across, middle.down);
        view.moveBy((before.clientX - event.clientX) / 2 / this.width, (before.clientY - event.clientY) / 2 / this.height);
      } else if (cutting) {
        this.cut(100 * this.place(event).across);
      } else {
        view.moveBy((before.clientX - event.clientX) / this.width, (before.clientY - event.clientY) / this.height);
      }
      pointers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      element.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        element.classList.remove("moving");
      });
    }
    element.addEventListener("dblclick", (event) => {
      const { across, down } = this.place(event);
      if (view.zoom > 1) view.fit();
      else view.zoomBy(4, across, down);
    });
    element.addEventListener("keydown", (event) => {
      const act = {
        "+": () => view.zoomBy(1.5), "=": () => view.zoomBy(1.5), "-": () => view.zoomBy(1 / 1.5), 0: () => view.fit(),
        ArrowLeft: () => view.moveBy(-0.1, 0), ArrowRight: () => view.moveBy(0.1, 0),
        ArrowUp: () => view.moveBy(0, -0.1), ArrowDown: () => view.moveBy(0, 0.1),
      }[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey || (view.zoom === 1 && event.key.startsWith("Arrow"))) return;
      event.preventDefault();
      act();
    });
    addEventListener("resize", () => this.arrange());
  }
}

const image = (source, alt, [left, top, width, height], keepsPixels) => {
  const element = make("img", { src: source, alt, draggable: false, className: keepsPixels ? "keeps-pixels" : "" });
  Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  return element;
};
