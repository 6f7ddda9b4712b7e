// Reads the page again while somebody looks at it, and shows what has changed in its <main>.
'use strict';

const LATE = 900; // milliseconds without an answer after which the page says so
const QUIET = 1000; // milliseconds after the last move of the pointer or key in which nothing moves

let pause = Number(document.body.dataset.poll);
const notice = document.getElementById('notice');
const live = document.querySelector('#live input');
const held = document.getElementById('held');
const clock = new Intl.DateTimeFormat('sv-SE', {dateStyle: 'short', timeStyle: 'medium'});
let main = document.querySelector('main');
let shown = main.innerHTML; // before the times were changed
let used = 0; // when the pointer or a key was last used in it

function say(text) {
  notice.hidden = !text;
  main.classList.toggle('stale', Boolean(text));
  if (notice.textContent !== text) notice.textContent = text;
}

async function refresh() {
  const late = setTimeout(say, LATE, 'There is no answer yet. What is below may be out of date.');
  try {
    const answer = await fetch(location.href, {headers: {Accept: 'text/html'}});
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const fresh = page.querySelector('main');
    if (answer.status === 503 && fresh && !main.querySelector('#problem')) {
      say(page.querySelector('#problem').textContent);
    } else if (fresh && (answer.ok || answer.status === 404 || answer.status === 503)) {
      document.title = page.title;
      pause = Number(page.body.dataset.poll);
      if (answer.redirected) history.replaceState(null, '', answer.url); // from that of a button
      show(fresh);
      say('');
    } else {
      say(`The application answers with the error ${answer.status}: load this page again.`);
    }
  } catch {
    say('The application does not answer. This page tries again by itself.');
  } finally {
    clearTimeout(late);
    setTimeout(poll, pause);
  }
}

function poll() {
  if (live.checked && !document.hidden) refresh();
  else setTimeout(poll, pause);
}

function show(fresh) {
  // Nothing moves away under a pointer that is about to click, or under selected text.
  const isSelected = main.contains(getSelection().anchorNode) && !getSelection().isCollapsed;
  const isInUse = performance.now() - used < QUIET || main.querySelector(':active');
  held.hidden = !isSelected || fresh.innerHTML === shown;
  if (isInUse || isSelected || fresh.innerHTML === shown) return;
  shown = fresh.innerHTML;
  for (const old of main.querySelectorAll('details')) {
    const now = fresh.querySelector(`#${old.id}`);
    if (now) now.open = old.open;
  }
  const focused = main.contains(document.activeElement) && nameOf(document.activeElement);
  main.replaceWith(fresh);
  main = fresh;
  if (focused) {
    [...main.querySelectorAll('a, button, summary')].find((one) => nameOf(one) === focused)?.focus();
  }
  showTimes();
}

function nameOf(element) {
  return element.href || element.form?.action || element.parentElement.id;
}

function showTimes() {
  for (const time of main.querySelectorAll('time')) {
    const moment = new Date(time.dateTime);
    if (isNaN(moment)) continue;
    time.title ||= time.textContent;
    const text = `${clock.format(moment)} (${distance((Date.now() - moment) / 1000)})`;
    if (time.textContent !== text) time.textContent = text;
  }
}

function distance(seconds) {
  const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']]
    .find(([length]) => Math.abs(seconds) >= length) ?? [1, 's'];
  const text = `${Math.floor(Math.abs(seconds) / size)}\u00a0${unit}`;
  return seconds <= -1 ? `in\u00a0${text}` : `${text}\u00a0ago`;
}

function stored() {
  try {
    return sessionStorage.getItem('live');
  } catch {
    return null; // refused
  }
}

function store(value) {
  try {
    sessionStorage.setItem('live', value);
  } catch {
    // Refused or full: this page alone remembers it.
  }
}

document.addEventListener('submit', (event) => {
  const question = event.submitter?.dataset.confirm;
  if (!question) return;
  if (!confirm(question)) return event.preventDefault();
  const confirmed = Object.assign(document.createElement('input'), {type: 'hidden', name: 'confirmed'});
  event.target.append(confirmed); // or the server asks
});
for (const kind of ['pointermove', 'keydown']) {
  document.addEventListener(kind, (event) => {
    if (main.contains(event.target)) used = performance.now();
  });
}
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) showTimes();
});

const address = new URL(location);
for (const name of ['done', 'count', 'of']) address.searchParams.delete(name);
history.replaceState(null, '', address); // what has been done is said once
showTimes();
setInterval(showTimes, 1000);
if (pause) {
  live.checked = stored() !== 'no';
  live.addEventListener('change', () => store(live.checked ? 'yes' : 'no'));
  live.parentElement.hidden = false;
  setTimeout(poll, pause);
}
