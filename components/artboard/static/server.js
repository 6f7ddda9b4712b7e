// The page's requests to the server, with error messages for people.

const API = '/api/artboard';
const TIMEOUT = 30_000; // milliseconds

const UNREACHABLE = 'The server cannot be reached. Is this device online?';
const QUEUE_UNAVAILABLE = 'The queue of drawings is not available. Try again in a few seconds.';
const SERVER_ERROR = 'The server had an internal error. Try again, or tell its operator.';

/** A failed request: a message for people, and the HTTP status, or 0 without a response. */
export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Request a drawing by a job; resolves to the job's id. */
export async function requestDrawing(choices) {
  const answer = await post({ ...choices, complexity: 'complex' });
  return answer.job_id;
}

/** Request a small drawing that the server makes at once; resolves to its SVG text. */
export async function sketch(choices, signal) {
  const answer = await post({ ...choices, complexity: 'simple' }, signal);
  return answer.svg;
}

export function lookUp(id) {
  return request(jobAddress(id), { cache: 'no-store' }, (answer) => answer.json());
}

export function fetchDrawing(id) {
  return request(drawingAddress(id), {}, (answer) => answer.text());
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
  return request(`${API}/create`, options, (answer) => answer.json());
}

async function request(address, options, read) {
  let answer;
  try {
    const signal = options.signal ?? AbortSignal.timeout(TIMEOUT);
    answer = await fetch(address, { ...options, signal });
    if (answer.ok) return await read(answer);
  } catch (error) {
    if (error.name === 'AbortError') throw error; // aborted by this page
    throw new Problem(UNREACHABLE, 0);
  }
  throw new Problem(await explain(answer), answer.status);
}

async function explain(answer) {
  if (answer.status === 503) return QUEUE_UNAVAILABLE;
  if (answer.status >= 500) return SERVER_ERROR;
  const problem = await answer.json().catch(() => ({})); // a proxy may answer in HTML
  return problem.detail || `The server refused this (${answer.status}).`;
}
