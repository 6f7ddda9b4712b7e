// The drawings that this browser requested, newest first; the list is kept only in this browser.
//
// A drawing has an id, choices (pattern, paper, orientation, seed), a state (the status of its job,
// or 'expired') and, once known, an error and a thumbnail (a data: URL).

const KEY = 'artboard.drawings';
const MOST = 12; // but for those that have not ended, which are all kept

export const ENDED = new Set(['finished', 'failed', 'stopped', 'canceled', 'expired']);

let memory = '[]'; // used where the browser refuses storage; lost on reload

export function all() {
  try {
    const drawings = JSON.parse(stored() ?? '[]');
    return Array.isArray(drawings) ? drawings.filter(isDrawing) : [];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

export function find(id) {
  return all().find((drawing) => drawing.id === id);
}

/** Add a drawing. In a full list it replaces the oldest that has ended, if there is one. */
export function add(drawing) {
  const drawings = [drawing, ...all()];
  while (drawings.length > MOST) {
    const oldest = drawings.findLastIndex(({ state }) => ENDED.has(state));
    if (oldest < 0) break;
    drawings.splice(oldest, 1);
  }
  store(drawings);
}

/** Change one drawing. Reads the list again, since another tab may have changed it. */
export function change(id, changes) {
  store(all().map((drawing) => (drawing.id === id ? { ...drawing, ...changes } : drawing)));
}

export function forget(id) {
  store(all().filter((drawing) => drawing.id !== id));
}

/** Call `listener` when another tab changes the list. */
export function onChange(listener) {
  addEventListener('storage', (event) => {
    if (event.key === KEY || event.key === null) listener();
  });
}

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return memory;
  }
}

function store(drawings) {
  memory = JSON.stringify(drawings);
  try {
    localStorage.setItem(KEY, memory);
  } catch {
    // Refused or full: `memory` has the list.
  }
}

/** Whether an entry is one of ours: anything can have written to the storage of this origin. */
function isDrawing(value) {
  const { id, state, choices, error, thumbnail } = value ?? {};
  const { pattern, paper, orientation, seed } = choices ?? {};
  return (
    [id, state, pattern, paper, error ?? '', thumbnail ?? ''].every(isText) &&
    ['portrait', 'landscape'].includes(orientation) &&
    Number.isInteger(seed)
  );
}

function isText(value) {
  return typeof value === 'string';
}
