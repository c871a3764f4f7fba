// Which part of a frame is seen: one view for all panels, so that they zoom and move together.

const SCREEN_PIXELS_PER_PIXEL = 32; // the closest look

class View {
  // `zoom` 1 shows the whole frame; `x` and `y` are the middle of what is seen, from 0 to 1.
  constructor(changed) {
    Object.assign(this, { zoom: 1, x: 0.5, y: 0.5, most: 8, changed });
  }

  // The frame's and a panel's width in pixels decide how close one can get.
  limit(frameWidth, panelWidth) {
    this.most = Math.max(8, (SCREEN_PIXELS_PER_PIXEL * frameWidth) / panelWidth);
    this.set(this.zoom, this.x, this.y);
  }

  set(zoom, x, y) {
    this.zoom = clamp(zoom, 1, this.most);
    const half = 0.5 / this.zoom;
    this.x = clamp(x, half, 1 - half);
    this.y = clamp(y, half, 1 - half);
    this.changed();
  }

  fit() {
    this.set(1, 0.5, 0.5);
  }

  // Keep the point of a panel at (across, down), from 0 to 1, where it is.
  zoomBy(factor, across = 0.5, down = 0.5) {
    const zoom = clamp(this.zoom * factor, 1, this.most);
    const moved = 1 / this.zoom - 1 / zoom;
    this.set(zoom, this.x + (across - 0.5) * moved, this.y + (down - 0.5) * moved);
  }

  // Move what is seen by parts of a panel.
  moveBy(across, down) {
    this.set(this.zoom, this.x + across / this.zoom, this.y + down / this.zoom);
  }
}
