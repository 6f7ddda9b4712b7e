// The drawings that this browser requested, newest first; the list is kept only in this browser.
//
// A drawing has an id, choices (pattern, paper, orientation, seed), a state (the status of its job,
// or 'expired') and, once known, an error and a thumbnail (a data: URL).

const KEY = 'artboard.drawings';
const MOST = 12;

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

export function add(drawing) {
  store([drawing, ...all()].slice(0, MOST));
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

function isDrawing(value) {
  return typeof value?.id === 'string' && typeof value.state === 'string' && !!value.choices;
}
