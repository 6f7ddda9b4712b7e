// What the page asks the server, and in words what went wrong.

const API = '/api/artboard';
const PATIENCE = 30_000; // milliseconds

const AWAY = 'The server cannot be reached. Is this device online?';
const QUEUE_AWAY = 'The queue of drawings is away at the moment. Try again in a few seconds.';
const OUR_FAULT = 'The server made a mistake. It is not yours: try again, or tell its operator.';

/** What went wrong, in words; `status` is HTTP's, or 0 if there was no answer. */
export class Problem extends Error {
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

/** Ask for a drawing by a job; returns the job's id. */
export async function requestDrawing(choices) {
  const answer = await post({ ...choices, complexity: 'complex' });
  return answer.job_id;
}

/** The SVG text of a drawing made at once: for small ones. */
export async function sketch(choices, signal) {
  const answer = await post({ ...choices, complexity: 'simple' }, signal);
  return answer.svg;
}

export function lookUp(id) {
  return ask(jobAddress(id), { cache: 'no-store' }, (answer) => answer.json());
}

export function fetchDrawing(id) {
  return ask(drawingAddress(id), {}, (answer) => answer.text());
}

export function drawingAddress(id) {
  return `${jobAddress(id)}/svg`;
}

function jobAddress(id) {
  return `${API}/jobs/${encodeURIComponent(id)}`;
}

function post(body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  const options = { method: 'POST', headers, body: JSON.stringify(body), signal };
  return ask(`${API}/create`, options, (answer) => answer.json());
}

async function ask(address, options, read) {
  let answer;
  try {
    const signal = options.signal ?? AbortSignal.timeout(PATIENCE);
    answer = await fetch(address, { ...options, signal });
    if (answer.ok) return await read(answer);
  } catch (error) {
    if (error.name === 'AbortError') throw error; // our own wish
    throw new Problem(AWAY, 0);
  }
  throw new Problem(await explain(answer), answer.status);
}

async function explain(answer) {
  if (answer.status === 503) return QUEUE_AWAY;
  if (answer.status >= 500) return OUR_FAULT;
  const problem = await answer.json().catch(() => ({})); // a proxy may answer in HTML
  return problem.detail || `The server refused this (${answer.status}).`;
}
