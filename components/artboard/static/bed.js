// The plotter's bed: the sheet of paper, the drawing on it and the status below it.

import { drawingAddress, fetchDrawing, sketch } from './server.js';
import { Plot, readDrawing, thumbnail } from './pen.js';

const SKETCH_SIDE = 60; // millimetres
const PAUSE = 150; // milliseconds without another choice before the sketch is requested

const part = (id) => document.getElementById(id);
const bed = part('bed');
const sheet = bed.querySelector('.sheet');
const still = matchMedia('(prefers-reduced-motion: reduce)');

let plot = null;
let current = null; // marks the current choice: late responses must not overwrite a newer one
let sketching = null;

export function title({ pattern, paper, orientation, seed }) {
  return `${pattern.replaceAll('_', ' ')}, ${paper} ${orientation}, seed ${seed}`;
}

/** Show a status or a problem. Writes only changes: a screen reader announces each write. */
export function showStatus(text, { working = false, problem = '' } = {}) {
  part('progress').hidden = !working;
  if (part('status').textContent !== text) part('status').textContent = text;
  if (part('problem').textContent !== problem) part('problem').textContent = problem;
}

/** Show progress from 0 to 1; null shows a bar without a value. */
export function showProgress(share) {
  if (share === null) part('progress').removeAttribute('value');
  else part('progress').value = share;
}

/** Clear the sheet and preview a choice as a pale sketch. */
export function previewChoice(choices) {
  const marker = clear(choices);
  bed.dataset.state = 'empty';
  if (!part('preview').hidden) return;
  sketching = new AbortController();
  const { signal } = sketching;
  setTimeout(() => showSketch(choices, marker, signal), PAUSE);
}

async function showSketch(choices, marker, signal) {
  if (signal.aborted) return;
  const tall = choices.orientation === 'portrait';
  const longSide = Math.round(SKETCH_SIDE * Math.SQRT2);
  const [width, height] = tall ? [SKETCH_SIDE, longSide] : [longSide, SKETCH_SIDE];
  const { pattern, seed } = choices;
  const text = await sketch({ pattern, seed, width, height }, signal).catch(() => null);
  if (!text || marker !== current) return; // without a sketch the paper stays blank
  const preview = part('preview');
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(new Blob([text], { type: 'image/svg+xml' }));
  preview.dataset.shows = sketchName(choices);
  preview.hidden = false;
}

/** Show a finished drawing, animated unless `atOnce`; resolves to its thumbnail, or null. */
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
        showFile(id, choices, drawing);
        resolve();
      },
    });
    part('skip').onclick = () => plot.finish();
    showStatus('The pen is drawing …');
    if (atOnce || still.matches) plot.finish();
  });
}

/** Show the SVG file itself in place of the animation. */
function showFile(id, choices, drawing) {
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
  if (focused) part('replay').focus(); // the skip button is hidden now
  bed.dataset.state = 'drawn';
  showStatus(`Ready: ${drawing.about}.`);
}

/** Clear the sheet, except a sketch of these same choices; returns the new marker. */
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
