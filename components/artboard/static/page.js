// The page: choices become a job, the job a drawing; and the list of earlier drawings.

import * as bed from './bed.js';
import * as drawings from './drawings.js';
import { life } from './life.js';
import { readDrawing, thumbnail } from './pen.js';
import { Problem, cancelJob, fetchDrawing, lookUp, requestDrawing } from './server.js';

const { ENDED } = drawings;
const FIRST_PAUSE = 250; // milliseconds between two polls of a job
const LONGEST_PAUSE = 2000;
const LONG_WAIT = 15_000; // milliseconds in the queue before the page says so

const START = 'is a worker running? “flask --app app jobs worker” starts one.';
const CANCELING = 'Cancelling it …';
const STATES = {
  queued: 'waiting for a worker',
  scheduled: 'to be tried again soon',
  deferred: 'waiting for another job',
  started: 'being drawn',
  finished: 'ready',
  failed: 'failed',
  stopped: 'was stopped',
  canceled: 'was cancelled',
  expired: 'no longer on the server',
};

const form = document.getElementById('choices');
const seedField = document.getElementById('seed');
const seedError = document.getElementById('seed-error');
const list = document.querySelector('#drawings ol');
const inDevelopment = 'development' in document.getElementById('bed').dataset;

const watched = new Set(); // ids of the drawings whose jobs are polled
const unwanted = new Set(); // ids of the drawings to cancel as soon as the server answers
let shown = null; // the drawing on the bed, as the bed reports it; it may have left the list

function isShown(id) {
  return shown?.id === id;
}

/** A drawing as this page knows it: another tab may have written a later state into the list. */
function find(id) {
  return isShown(id) ? shown : drawings.find(id);
}

function change(id, changes) {
  drawings.change(id, changes);
  if (isShown(id)) shown = { ...shown, ...changes };
  listAll();
}

// Choosing

function choices() {
  const chosen = new FormData(form);
  return {
    pattern: chosen.get('pattern'),
    paper: chosen.get('paper'),
    orientation: chosen.get('orientation'),
    seed: Number(chosen.get('seed')),
  };
}

function choose(wanted) {
  for (const name of ['pattern', 'paper', 'orientation']) {
    const option = form.querySelector(`[name="${name}"][value="${CSS.escape(wanted[name])}"]`);
    if (option) option.checked = true;
  }
  seedField.value = wanted.seed;
  describe();
}

function describe() {
  const { pattern } = choices();
  for (const line of document.querySelectorAll('#about span')) {
    line.classList.toggle('chosen', line.dataset.pattern === pattern);
  }
}

function seedIsGood() {
  const good = seedField.checkValidity();
  seedField.setAttribute('aria-invalid', String(!good));
  seedError.textContent = good
    ? ''
    : `The seed must be a whole number from ${seedField.min} to ${seedField.max}.`;
  return good;
}

function chosen(event) {
  if (event?.target.name === 'urgent') return; // how it is queued, not what is drawn
  describe();
  if (!seedIsGood()) return;
  mark(null);
  bed.previewChoice(choices());
  bed.showStatus('Press “Draw it”, and a worker draws it.');
}

function throwDice() {
  seedField.value = 1 + Math.floor(Math.random() * 9999);
  chosen();
}

// Requesting

async function submit(event) {
  event.preventDefault();
  const button = document.getElementById('draw');
  if (button.getAttribute('aria-disabled') === 'true') return;
  if (!seedIsGood()) {
    seedField.focus();
    return;
  }
  button.setAttribute('aria-disabled', 'true'); // not `disabled`, which would lose the focus
  try {
    await request(choices());
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    bed.showStatus('', { problem: error.withAdvice });
  } finally {
    button.removeAttribute('aria-disabled');
  }
}

async function request(wanted) {
  mark(null);
  bed.previewChoice(wanted);
  bed.showStatus('Requesting the drawing …', { working: true });
  bed.bringIntoView();
  const urgent = new FormData(form).has('urgent');
  const id = await requestDrawing({ ...jobArguments(wanted), urgent });
  const drawing = { id, choices: wanted, state: 'queued' };
  drawings.add(drawing);
  mark(drawing);
  report(drawing);
  watch(id);
}

function jobArguments({ pattern, paper, orientation, seed }) {
  const { short, long } = form.querySelector(`[value="${CSS.escape(paper)}"]`).dataset;
  const sides = [Number(short), Number(long)];
  const [width, height] = orientation === 'portrait' ? sides : sides.reverse();
  return { pattern, width, height, seed };
}

// Waiting

/** Poll a drawing's job until it has ended, also through server and network errors. */
async function watch(id) {
  if (watched.has(id)) return;
  watched.add(id);
  const since = Date.now();
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 1.2, LONGEST_PAUSE)) {
    const drawing = await poll(id, Date.now() - since > LONG_WAIT);
    if (!drawing || ENDED.has(drawing.state)) break;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  watched.delete(id);
}

function watchAll(wanted) {
  for (const { id } of drawings.all().filter(wanted)) watch(id);
}

async function poll(id, long) {
  try {
    update(id, await ask(id), long);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 404) update(id, { status: 'expired' });
    else if (isShown(id) && !ENDED.has(shown.state)) {
      const problem = `${error.message} The page keeps asking.`;
      bed.showStatus(unwanted.has(id) ? CANCELING : '', { ...canCancel(id), problem });
    }
  }
  return find(id);
}

/** Look a job up, and cancel it if it is unwanted. */
async function ask(id) {
  let job = await lookUp(id);
  if (unwanted.has(id) && !ENDED.has(job.status)) {
    await cancelJob(id).catch((error) => {
      // 404 and 409: it has ended meanwhile.
      if (![404, 409].includes(error.status)) throw error;
    });
    job = await lookUp(id);
  }
  return job;
}

/** Record what the server says of a drawing's job, in the list and on the bed. */
function update(id, job, long) {
  const before = find(id)?.state;
  if (before === 'expired') return; // its file is gone
  if (ENDED.has(job.status)) unwanted.delete(id);
  change(id, { state: job.status, error: job.error });
  if (isShown(id)) {
    bed.showProgress(share(job.progress));
    bed.showLife(life(job));
    if (!ENDED.has(before) || job.status !== before) report(shown, long);
  } else {
    const drawing = find(id);
    if (drawing?.state === 'finished' && !drawing.thumbnail) fetchPicture(drawing);
  }
}

function cancel(id) {
  unwanted.add(id);
  listAll();
  if (isShown(id)) report(shown);
  return poll(id);
}

function canCancel(id) {
  return { working: true, cancel: () => cancel(id) };
}

function share(progress) {
  const { done, total } = progress ?? {};
  return total > 0 ? Math.min(1, done / total) : null;
}

// Showing

function report(drawing, long = false) {
  const { id, state, error } = drawing;
  if (state === 'finished') {
    reveal(drawing);
  } else if (!ENDED.has(state)) {
    bed.showStatus(unwanted.has(id) ? CANCELING : waiting(state, long), canCancel(id));
  } else if (state === 'stopped' || (state === 'canceled' && !error)) {
    bed.showStatus(ending(state)); // as requested: what the worker calls an error is none
  } else {
    bed.showStatus('', { problem: ending(state, error) });
  }
}

function waiting(state, long) {
  if (state === 'started') return 'A worker is drawing it …';
  if (long && state === 'queued') return inDevelopment ? `Still waiting: ${START}` : 'Still waiting …';
  return `In the queue, ${STATES[state] ?? state} …`;
}

function ending(state, error) {
  if (state === 'expired') return 'The server no longer knows this drawing. Draw it again?';
  const reason = error ? `: ${error.replace(/\.$/, '')}` : '';
  return `The drawing ${STATES[state]}${reason}. Draw it again?`;
}

async function reveal(drawing, atOnce = false) {
  const picture = await fetchPicture(drawing);
  if (picture && isShown(drawing.id)) bed.showDrawing(drawing, picture, atOnce);
}

/** Fetch a finished drawing and show it in the list; null without one. */
async function fetchPicture({ id }) {
  try {
    const picture = readDrawing(await fetchDrawing(id));
    change(id, { thumbnail: thumbnail(picture) });
    return picture;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 404) change(id, { state: 'expired' });
    if (isShown(id)) bed.showStatus('', { problem: error.withAdvice });
    return null;
  }
}

/** Put a drawing of the list on the bed. */
function open(drawing, atOnce = false) {
  choose(drawing.choices);
  mark(drawing);
  if (drawing.state === 'finished') {
    bed.clear(drawing.choices);
    bed.showStatus('Fetching the drawing …', { working: true });
    reveal(drawing, atOnce);
  } else {
    bed.previewChoice(drawing.choices);
    report(drawing);
  }
  if (drawing.state !== 'expired') watch(drawing.id); // of one that has ended, for its life
}

function mark(drawing) {
  shown = drawing;
  bed.showProgress(null);
  bed.showLife([]);
  listAll();
}

// The list

function listAll() {
  const known = drawings.all();
  document.getElementById('drawings').hidden = known.length === 0;
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  known.forEach((drawing, place) => {
    const item = items.get(drawing.id) ?? makeItem(drawing);
    items.delete(drawing.id);
    fill(item, drawing);
    // Moving an item loses the focus, so leave it if it is in place.
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  items.forEach((item) => item.remove());
}

function makeItem({ id, choices: wanted }) {
  const item = document.getElementById('entry').content.firstElementChild.cloneNode(true);
  item.dataset.id = id;
  item.querySelector('.leaf').classList.add(wanted.orientation);
  item.querySelector('.name').textContent = bed.title(wanted);
  item.querySelector('.open').addEventListener('click', () => {
    bed.bringIntoView();
    open(drawings.find(id));
  });
  item.querySelector('.forget').addEventListener('click', () => {
    if (ENDED.has(drawings.find(id).state)) forgetItem(id, item);
    else cancel(id);
  });
  return item;
}

function fill(item, { id, choices: wanted, state, thumbnail: source }) {
  item.dataset.state = state;
  item.toggleAttribute('data-shown', isShown(id));
  item.querySelector('.open').setAttribute('aria-current', String(isShown(id)));
  item.querySelector('.state').textContent = unwanted.has(id)
    ? 'to be cancelled'
    : (STATES[state] ?? state);
  const picture = item.querySelector('img');
  picture.hidden = !source;
  if (source && picture.src !== source) picture.src = source;
  const forget = item.querySelector('.forget');
  const ended = ENDED.has(state);
  const [word, label] = ended ? ['×', 'Forget'] : ['cancel', 'Cancel'];
  forget.textContent = word;
  forget.classList.toggle('cancels', !ended);
  forget.setAttribute('aria-label', `${label} ${bed.title(wanted)}`);
}

function forgetItem(id, item) {
  const neighbour = item.nextElementSibling ?? item.previousElementSibling;
  drawings.forget(id);
  if (isShown(id)) chosen();
  else listAll();
  (neighbour?.querySelector('.forget') ?? document.getElementById('draw')).focus();
}

// Start

form.addEventListener('submit', submit);
form.addEventListener('input', chosen);
document.getElementById('dice').addEventListener('click', throwDice);
drawings.onChange(() => {
  listAll();
  watchAll(({ state }) => !ENDED.has(state));
});

const [newest] = drawings.all();
if (newest) open(newest, true);
else chosen();
watchAll(({ state }) => state === 'finished' || !ENDED.has(state));
