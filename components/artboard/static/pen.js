// Animates a drawing on a canvas as a pen draws it. Each frame adds to the ones before, so that all
// frames together cost as much as drawing it once.

const SHORTEST = 3; // seconds
const LONGEST = 9;
const PER_SECOND = 4000; // millimetres per second, within these bounds
const LIFTED = 5; // a lifted pen travels this many times faster
const MOST_PIXELS = 1800; // per side
const FAINTEST = 0.5; // pixels: thinner lines would not be seen in a thumbnail

/** Parse an SVG: size and pen width in mm, strokes as flat lists of coordinates, and the `desc`. */
export function readDrawing(text) {
  const root = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
  const { width, height } = root.viewBox.baseVal;
  const lines = [...root.querySelectorAll('polyline')];
  return {
    width,
    height,
    pen: Number(root.querySelector('g')?.getAttribute('stroke-width')) || 0.4,
    strokes: lines.map((line) => line.getAttribute('points').split(/[\s,]+/).map(Number)),
    about: root.querySelector('desc')?.textContent ?? '',
  };
}

/** Starts to draw; calls `moved(x, y)` with the pen's position, 0 to 1, and `ended` at the end. */
export class Plot {
  constructor(canvas, drawing, { moved, ended }) {
    this.drawing = drawing;
    this.moved = moved;
    this.ended = ended;
    const most = MOST_PIXELS * Math.min(1, drawing.width / drawing.height);
    const wanted = canvas.parentElement.clientWidth * Math.min(devicePixelRatio, 2);
    this.context = prepare(canvas, drawing, Math.min(wanted, most));
    this.path = new PenPath(drawing.strokes);
    this.done = 0;
    const seconds = Math.min(LONGEST, Math.max(SHORTEST, this.path.length / PER_SECOND));
    this.speed = this.path.length / seconds / 1000;
    this.frame = requestAnimationFrame((now) => {
      this.started = now;
      this.step(now);
    });
  }

  step(now) {
    // Timed by the clock: after a hidden tab is shown again, one frame catches up.
    const due = (now - this.started) * this.speed - this.done;
    const [x, y] = this.draw(due);
    this.done += due;
    this.moved(x / this.drawing.width, y / this.drawing.height);
    if (this.path.ended) this.ended();
    else this.frame = requestAnimationFrame((later) => this.step(later));
  }

  draw(length) {
    this.context.beginPath();
    const position = this.path.advance(length, this.context);
    this.context.stroke();
    return position;
  }

  /** Draw the rest at once. */
  finish() {
    this.stop();
    this.draw(Infinity);
    this.ended();
  }

  stop() {
    cancelAnimationFrame(this.frame);
  }
}

/** The path of the pen through all strokes; `length` counts travel divided by LIFTED. */
class PenPath {
  constructor(strokes) {
    this.strokes = strokes.filter((stroke) => stroke.length >= 4);
    this.stroke = 0;
    this.next = 0; // index of the next coordinate
    this.position = this.strokes[0]?.slice(0, 2) ?? [0, 0];
    this.length = this.measure();
  }

  get ended() {
    return this.stroke >= this.strokes.length;
  }

  measure() {
    let [x, y] = this.position;
    let length = 0;
    for (const stroke of this.strokes) {
      length += Math.hypot(stroke[0] - x, stroke[1] - y) / LIFTED;
      for (let i = 2; i < stroke.length; i += 2) {
        length += Math.hypot(stroke[i] - stroke[i - 2], stroke[i + 1] - stroke[i - 1]);
      }
      [x, y] = stroke.slice(-2);
    }
    return length;
  }

  /** Advance by `length`, tracing it on the context; returns the pen's new position. */
  advance(length, context) {
    context.moveTo(...this.position);
    while (!this.ended) {
      const stroke = this.strokes[this.stroke];
      const [x, y] = this.position;
      const [toX, toY] = [stroke[this.next], stroke[this.next + 1]];
      const lifted = this.next === 0;
      const distance = Math.hypot(toX - x, toY - y) / (lifted ? LIFTED : 1);
      const share = distance > length ? length / distance : 1;
      this.position = share < 1 ? [x + (toX - x) * share, y + (toY - y) * share] : [toX, toY];
      if (lifted) context.moveTo(...this.position);
      else context.lineTo(...this.position);
      if (share < 1) break;
      length -= distance;
      this.next += 2;
      if (this.next >= stroke.length) {
        this.stroke += 1;
        this.next = 0;
      }
    }
    return this.position;
  }
}

/** The context of a canvas `width` pixels wide, in millimetres, with the drawing's pen. */
function prepare(canvas, drawing, width) {
  canvas.width = Math.round(width);
  canvas.height = Math.round((canvas.width * drawing.height) / drawing.width);
  const context = canvas.getContext('2d');
  const scale = canvas.width / drawing.width;
  context.scale(scale, scale);
  context.lineWidth = drawing.pen;
  context.lineCap = context.lineJoin = 'round';
  return context;
}

/** A small picture of a drawing, as a data: URL. */
export function thumbnail(drawing, longest = 180) {
  const canvas = document.createElement('canvas');
  const scale = longest / Math.max(drawing.width, drawing.height);
  const context = prepare(canvas, drawing, drawing.width * scale);
  context.lineWidth = Math.max(drawing.pen, FAINTEST / scale);
  context.beginPath();
  new PenPath(drawing.strokes).advance(Infinity, context);
  context.stroke();
  return canvas.toDataURL('image/webp', 0.8);
}
