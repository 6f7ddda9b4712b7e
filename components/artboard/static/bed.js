// The plotter's bed: the sheet of paper, what is on it, and what is told below it.

import { drawingAddress, fetchDrawing, sketch } from './server.js';
import { Plot, readDrawing, thumbnail } from './pen.js';

const SKETCH_SIDE = 60; // millimetres
const PAUSE = 150; // milliseconds without another choice before it is sketched

const part = (id) => document.getElementById(id);
const bed = part('bed');
const sheet = bed.querySelector('.sheet');
const still = matchMedia('(prefers-reduced-motion: reduce)');

let plot = null;
let current = null; // what is on the sheet: old answers must not overwrite a newer choice
let sketching = null;

export function title({ pattern, paper, orientation, seed }) {
  return `${pattern.replaceAll('_', ' ')}, ${paper} ${orientation}, seed ${seed}`;
}

/** Tell how far it is. Only a change is written, since a screen reader says it aloud. */
export function tell(words, { working = false, problem = '' } = {}) {
  part('progress').hidden = !working;
  if (part('status').textContent !== words) part('status').textContent = words;
  if (part('problem').textContent !== problem) part('problem').textContent = problem;
}

/** A progress bar that knows how far it is, if the job told. */
export function showProgress(share) {
  if (share === null) part('progress').removeAttribute('value');
  else part('progress').value = share;
}

/** Clear the sheet, and in pencil show what a choice would look like. */
export function lay(choices) {
  const marker = clear(choices);
  bed.dataset.state = 'empty';
  if (!part('preview').hidden) return;
  sketching = new AbortController();
  const { signal } = sketching;
  setTimeout(() => pencil(choices, marker, signal), PAUSE);
}

async function pencil(choices, marker, signal) {
  if (signal.aborted) return;
  const tall = choices.orientation === 'portrait';
  const longSide = Math.round(SKETCH_SIDE * Math.SQRT2);
  const [width, height] = tall ? [SKETCH_SIDE, longSide] : [longSide, SKETCH_SIDE];
  const { pattern, seed } = choices;
  const text = await sketch({ pattern, seed, width, height }, signal).catch(() => null);
  if (!text || marker !== current) return; // without a sketch, the paper stays white
  const preview = part('preview');
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(new Blob([text], { type: 'image/svg+xml' }));
  preview.dataset.shows = sketchName(choices);
  preview.hidden = false;
}

/** Draw a finished drawing, with the pen unless `at once`; returns its thumbnail, or null. */
export async function draw({ id, choices }, atOnce) {
  const marker = clear(choices);
  const text = await fetchDrawing(id);
  if (marker !== current) return null;
  const drawing = readDrawing(text);
  part('replay').onclick = () => play(id, choices, drawing, false);
  await play(id, choices, drawing, atOnce);
  return marker === current ? thumbnail(part('plot')) : null;
}

function play(id, choices, drawing, atOnce) {
  return new Promise((resolve) => {
    plot?.stop();
    bed.dataset.state = 'plotting';
    reveal('plot', 'nib', 'skip');
    plot = new Plot(part('plot'), drawing, {
      moved(x, y) {
        part('nib').style.translate = `${x * sheet.clientWidth}px ${y * sheet.clientHeight}px`;
      },
      ended() {
        hang(id, choices, drawing);
        resolve();
      },
    });
    part('skip').onclick = () => plot.finish();
    tell('The pen is on the paper …');
    if (atOnce || still.matches) plot.finish();
  });
}

/** Show the file itself instead of what was played. */
function hang(id, choices, drawing) {
  const picture = part('picture');
  picture.alt = title(choices);
  picture.onload = () => {
    if (!picture.hidden) part('plot').hidden = true;
  };
  picture.src = drawingAddress(id);
  const link = part('download');
  const { pattern, paper, orientation, seed } = choices;
  link.href = `${drawingAddress(id)}?download=1`;
  link.download = `${pattern}-${paper}-${orientation}-${seed}.svg`;
  const focused = document.activeElement === part('skip');
  reveal('plot', 'picture', 'download', 'replay');
  if (focused) part('replay').focus(); // its button is gone
  bed.dataset.state = 'drawn';
  tell(`Ready: ${drawing.about}.`);
}

/** Take everything off the sheet but a sketch of these very choices. */
function clear(choices) {
  plot?.stop();
  sketching?.abort();
  current = Symbol('what is on the sheet');
  sheet.dataset.orientation = choices.orientation;
  part('caption').textContent = title(choices);
  part('picture').removeAttribute('src');
  reveal(...(part('preview').dataset.shows === sketchName(choices) ? ['preview'] : []));
  return current;
}

function sketchName({ pattern, orientation, seed }) {
  return `${pattern} ${orientation} ${seed}`;
}

/** Show these parts, hide the others. */
function reveal(...shown) {
  for (const id of ['preview', 'plot', 'nib', 'picture', 'skip', 'replay', 'download']) {
    part(id).hidden = !shown.includes(id);
  }
}

export function bringIntoView() {
  bed.scrollIntoView({ block: 'nearest', behavior: still.matches ? 'auto' : 'smooth' });
}
