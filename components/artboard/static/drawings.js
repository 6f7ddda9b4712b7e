// The drawings that this browser asked for, newest first. Nothing of them is kept elsewhere.
//
// A drawing: id, choices (pattern, paper, orientation, seed), state (a status of its job, or
// 'expired'), and once known error and thumbnail (a data: URL).

const KEY = 'artboard.drawings';
const MOST = 12;

let memory = '[]'; // stands in where a browser refuses storage: then a reload forgets

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

/** Another tab may have changed the rest, so the list is read anew. */
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
    // Refused or full: `memory` has it.
  }
}

function isDrawing(value) {
  return typeof value?.id === 'string' && typeof value.state === 'string' && !!value.choices;
}
