// The plotter's bed: the sheet of paper, the drawing on it and the status below it.

import { drawingAddress, sketchAddress } from './server.js';
import { Plot } from './pen.js';

const PAUSE = 250; // milliseconds without another choice before the sketch is requested

const part = (id) => document.getElementById(id);
const bed = part('bed');
const sheet = bed.querySelector('.sheet');
const still = matchMedia('(prefers-reduced-motion: reduce)');

let plot = null;
let sketching = null; // a timer

export function title({ pattern, paper, orientation, seed }) {
  return `${pattern.replaceAll('_', ' ')}, ${paper} ${orientation}, seed ${seed}`;
}

/**
 * Show a status or a problem, and offer to cancel if there is a function that does. Writes only
 * changes: a screen reader announces each write.
 */
export function showStatus(text, { working = false, problem = '', cancel = null } = {}) {
  part('progress').hidden = !working;
  if (part('status').textContent !== text) part('status').textContent = text;
  if (part('problem').textContent !== problem) part('problem').textContent = problem;
  const focused = document.activeElement === part('cancel');
  part('cancel').hidden = !cancel;
  part('cancel').onclick = cancel;
  if (focused && !cancel) part('draw').focus();
}

/** Show the life of a job, as a list of short texts. */
export function showLife(steps) {
  const items = steps.map((text) => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  });
  part('life').replaceChildren(...items);
}

/** Show progress from 0 to 1; null shows a bar without a value. */
export function showProgress(share) {
  if (share === null) part('progress').removeAttribute('value');
  else part('progress').value = share;
}

/** Clear the sheet and preview a choice as a pale sketch. */
export function previewChoice(choices) {
  clear(choices);
  bed.dataset.state = 'empty';
  if (part('preview').hidden) sketching = setTimeout(() => showSketch(choices), PAUSE);
}

function showSketch(choices) {
  const preview = part('preview');
  preview.onload = () => {
    preview.dataset.shows = title(choices);
    reveal('preview');
  };
  delete preview.dataset.shows; // without a sketch the paper stays blank
  preview.src = sketchAddress(choices);
}

/** Show a finished drawing, animated unless `atOnce`. */
export function showDrawing({ id, choices }, drawing, atOnce) {
  clear(choices);
  part('replay').onclick = () => play(id, choices, drawing, false);
  play(id, choices, drawing, atOnce);
}

function play(id, choices, drawing, atOnce) {
  plot?.stop();
  bed.dataset.state = 'plotting';
  reveal('plot', 'nib', 'skip');
  plot = new Plot(part('plot'), drawing, {
    moved(x, y) {
      part('nib').style.translate = `${x * sheet.clientWidth}px ${y * sheet.clientHeight}px`;
    },
    ended: () => showFile(id, choices, drawing),
  });
  part('skip').onclick = () => plot.finish();
  showStatus('The pen is drawing …');
  if (atOnce || still.matches) plot.finish();
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

/** Clear the sheet, except a sketch of these same choices. */
export function clear(choices) {
  plot?.stop();
  clearTimeout(sketching);
  part('preview').onload = null; // a late sketch must not cover what comes now
  sheet.dataset.orientation = choices.orientation;
  part('caption').textContent = title(choices);
  part('picture').removeAttribute('src');
  reveal(...(part('preview').dataset.shows === title(choices) ? ['preview'] : []));
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
