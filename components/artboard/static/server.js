// The page's requests to the server, with error messages for people.

const API = '/api/artboard';
const TIMEOUT = 30_000; // milliseconds

// What is wrong, and what to do about it where the page repeats nothing by itself.
const UNREACHABLE = ['The server cannot be reached. Is this device online?'];
const QUEUE_UNAVAILABLE = ['The queue of drawings is not available.', 'Try again in a few seconds.'];
const SERVER_ERROR = ['The server had an internal error.', 'Try again, or tell its operator.'];

/** A failed request: a message for people, and the HTTP status, or 0 without a response. */
export class Problem extends Error {
  constructor(status, message, ...advice) {
    super(message);
    this.status = status;
    this.withAdvice = [message, ...advice].join(' ');
  }
}

/** Request a drawing by a job; resolves to the job's id. */
export async function requestDrawing(choices) {
  const headers = { 'Content-Type': 'application/json' };
  const body = JSON.stringify({ ...choices, complexity: 'complex' });
  const options = { method: 'POST', headers, body };
  const { job_id: id } = await request(`${API}/create`, options, (answer) => answer.json());
  return id;
}

/** The address of the drawing of a choice, at fewer points. */
export function sketchAddress({ pattern, paper, orientation, seed }) {
  return `/artboard/sketches/${paper}/${orientation}/${pattern}/${seed}.svg`;
}

export function lookUp(id) {
  return request(jobAddress(id), { cache: 'no-store' }, (answer) => answer.json());
}

export function cancelJob(id) {
  return request(jobAddress(id), { method: 'DELETE' }, (answer) => answer.json());
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

async function request(address, options, read) {
  let answer;
  try {
    answer = await fetch(address, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
    if (answer.ok) return await read(answer);
  } catch {
    throw new Problem(0, ...UNREACHABLE);
  }
  throw new Problem(answer.status, ...(await explain(answer)));
}

async function explain(answer) {
  const problem = await answer.json().catch(() => ({})); // a proxy may answer in HTML
  // A refusal with a reason for people; that of a queue that is away is for programs.
  if (answer.status === 503 && problem.title === 'Service Unavailable') return [problem.detail];
  if (answer.status === 503) return QUEUE_UNAVAILABLE;
  if (answer.status >= 500) return SERVER_ERROR;
  return [problem.detail || `The server refused this (${answer.status}).`];
}
