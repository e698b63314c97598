// The page that watches: what is open stands after the address's #; the server says what changed (server-sent events).
'use strict';

const place = (id) => document.getElementById(id);
let open = {}, events = null, offset = 0, mask = null;

// Text that the server made from its templates, into the page.
function fill(element, text) {
  const focused = element.contains(document.activeElement) && document.activeElement !== element ? document.activeElement.closest('[id]')?.id : null;
  discard(element);
  element.innerHTML = text;
  enliven(element);
  tick(element);
  if (focused) (place(focused)?.querySelector('a') || place(focused))?.focus({ preventScroll: true });
}

function discard(element) {
  element.querySelectorAll('figure.view').forEach((figure) => figure.view?.release());
}

function address(route, more = {}) {
  const words = { run: open.run, ...(open.job === undefined ? {} : { dataset: open.dataset, job: open.job }), ...more };
  return `${route}?${new URLSearchParams(words)}`;
}

async function ask(route, more, signal) {
  const answer = await fetch(address(route, more), { signal });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

// Ask for a part of the page; an answer that comes after the reader went elsewhere is left.
async function refresh(id, route = id, more = {}) {
  const asked = JSON.stringify(open);
  let text;
  try { text = await (await ask(route, more)).text(); } catch (error) { return complain(place(id), error); }
  if (asked !== JSON.stringify(open)) return false;
  fill(place(id), text);
  return true;
}

function complain(element, error) {
  if (error.name === 'AbortError') return false;
  const line = document.createElement('p');
  line.className = 'warning';
  line.textContent = error.message;
  discard(element);
  element.replaceChildren(line);
  return false;
}

function duration(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60), hours = Math.floor(minutes / 60);
  if (minutes < 100) return `${minutes} min`;
  return hours < 48 ? `${hours} h ${String(minutes % 60).padStart(2, '0')} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// When things were, as this browser writes it, and how long they have been going on, by the server's clock.
function tick(root = document) {
  const now = Date.now() / 1000 + offset;
  root.querySelectorAll('time[data-at]').forEach((one) => {
    one.textContent = new Date(1000 * Number(one.dataset.at)).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
    delete one.dataset.at;
  });
  root.querySelectorAll('time[data-since]').forEach((one) => { one.textContent = duration(now - Number(one.dataset.since)); });
}
setInterval(() => tick(), 1000);

function live(text, fine) {
  place('live').textContent = text;
  place('live').classList.toggle('warn', !fine);
}

// What is open, from the address.
function read() {
  const words = new URLSearchParams(location.hash.slice(1)), only = document.body.dataset.runs === '1';
  open = { run: words.get('run') ?? (only ? '0' : undefined) };
  if (words.has('job')) Object.assign(open, { dataset: words.get('dataset') ?? '', job: words.get('job'), view: words.get('view') ?? 'job' });
}

function go() {
  const before = open;
  read();
  const same = before.run === open.run, overview = open.run === undefined;
  document.body.classList.toggle('deep', !overview && (document.body.dataset.runs !== '1' || open.job !== undefined));
  document.body.classList.toggle('with-job', open.job !== undefined);
  document.body.classList.toggle('with-mask', open.view === 'mask');
  document.querySelectorAll('.run').forEach((card, number) => card.classList.toggle('open', String(number) === open.run));
  place('job').hidden = open.job === undefined;
  for (const id of ['job', ...(same ? [] : ['run', 'summary'])]) { discard(place(id)); place(id).replaceChildren(); }
  mask?.abort();
  mask = null;
  listen();
  if (open.view === 'mask') openMask();
  mark();
}

function listen(log = '') {
  events?.close();
  events = new EventSource(open.run === undefined ? 'events' : address('events', log ? { log } : {}));
  events.onopen = () => live('live', true);
  events.onerror = () => live('no connection, trying again', false);
  events.onmessage = (message) => apply(JSON.parse(message.data));
}

async function apply(news) {
  if (news.now) offset = news.now - Date.now() / 1000;
  if (news.problem) live(news.problem.split('\n')[0], false);
  for (const [id, text] of Object.entries(news.parts ?? {})) if (place(id)) fill(place(id), text);
  for (const id of news.stale ?? []) {
    if (id === 'job') { if (open.view !== 'mask') await showJob(); } else await refresh(id);
  }
  if (news.log !== undefined) showLog(news.log);
  mark();
}

// ---- a job

let lastLog = '', chosen = {};

async function showJob() {
  const job = place('job'), scrolled = job.scrollTop, key = `${open.run} ${open.dataset} ${open.job}`;
  if (chosen.key !== key) chosen = { key };
  if (!await refresh('job')) return;
  const maps = job.querySelector('select[name=map]'), logs = job.querySelector('select[name=log]');
  if (maps) {
    if ([...maps.options].some((one) => one.value === chosen.map)) maps.value = chosen.map;
    maps.addEventListener('change', () => { chosen.map = maps.value; refresh('picture', 'picture', { map: maps.value }); });
    refresh('picture', 'picture', { map: maps.value });
  }
  if (logs) {
    if ([...logs.options].some((one) => one.value === chosen.log)) logs.value = chosen.log;
    logs.addEventListener('change', () => { chosen.log = logs.value; listen(logs.value); });
  }
  showLog(lastLog);
  job.scrollTop = scrolled;
}

function showLog(text) {
  lastLog = text;
  const log = place('log');
  if (!log) return;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30 || !log.textContent;
  log.textContent = text;
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// ---- the graph: lines from what a step got to the step

function mark() {
  document.querySelectorAll('.chip[aria-current]').forEach((one) => one.removeAttribute('aria-current'));
  const here = open.job === undefined ? null : [...document.querySelectorAll('.chip')].find((one) => {
    const words = new URLSearchParams(one.hash.slice(1));
    return words.get('job') === open.job && words.get('dataset') === open.dataset;
  });
  here?.setAttribute('aria-current', 'true');
  draw(here?.parentElement.id);
}

// From side to side within a row, from above to below between rows.
function curve(a, b, box) {
  const row = Math.abs(a.top - b.top) < 4 && a.right <= b.left;
  const [x, y] = row ? [a.right - box.left, a.top + a.height / 2 - box.top] : [a.left + a.width / 2 - box.left, (a.top < b.top ? a.bottom : a.top) - box.top];
  const [u, v] = row ? [b.left - box.left, b.top + b.height / 2 - box.top] : [b.left + b.width / 2 - box.left, (a.top < b.top ? b.top : b.bottom) - box.top];
  return row ? `M${x} ${y}C${(x + u) / 2} ${y} ${(x + u) / 2} ${v} ${u} ${v}` : `M${x} ${y}C${x} ${(y + v) / 2} ${u} ${(y + v) / 2} ${u} ${v}`;
}

function draw(near) {
  for (const graph of document.querySelectorAll('.graph')) {
    const svg = graph.querySelector('.edges'), box = graph.getBoundingClientRect(), paths = [];
    if (getComputedStyle(svg).display === 'none') continue;
    const many = graph.querySelectorAll('li').length > 150;
    for (const step of graph.querySelectorAll('li[data-from]')) {
      for (const from of step.dataset.from.split(' ').filter(Boolean)) {
        const source = place(from), close = near === from || near === step.id;
        if (!source || (many && !close)) continue;
        const a = source.getBoundingClientRect(), b = step.getBoundingClientRect();
        const path = document.createElementNS(svg.namespaceURI, 'path');
        path.setAttribute('d', curve(a, b, box));
        if (close) path.setAttribute('class', 'near');
        paths.push(path);
      }
    }
    paths.sort((one, other) => one.classList.length - other.classList.length);
    svg.replaceChildren(...paths);
  }
}

// ---- the mask

async function openMask() {
  if (!await refresh('job', 'mask')) return;
  const form = place('mask-form');
  for (const name of ['threshold', 'extend', 'edge']) {
    const slider = place(`${name}-slider`), number = place(name);
    slider.addEventListener('input', () => { number.value = name === 'threshold' ? Number(slider.value).toPrecision(6) : slider.value; later(); });
    number.addEventListener('input', () => { slider.value = number.value; later(); });
  }
  form.addEventListener('submit', (event) => event.preventDefault());
  document.querySelectorAll('[data-copy]').forEach((button) => button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(place(button.dataset.copy).textContent);
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  }));
  showMask();
}

let waiting = 0;
function later() {
  clearTimeout(waiting);
  waiting = setTimeout(showMask, 150);
}

async function showMask() {
  mask?.abort();
  mask = new AbortController();
  const mine = mask, values = Object.fromEntries(new FormData(place('mask-form')));
  place('mask-busy').textContent = 'computing the mask …';
  let found;
  try { found = await (await ask('masked', values, mine.signal)).json(); } catch (error) {
    if (mine === mask && place('mask-busy')) place('mask-busy').textContent = error.name === 'AbortError' ? '' : error.message;
    return;
  }
  if (mine !== mask) return;
  for (const [id, text] of Object.entries(found.parts)) fill(place(id), text);
  place('mask-setting').textContent = found.setting;
  place('mask-command').textContent = found.command;
  place('mask-busy').textContent = '';
  const figure = place('job').querySelector('figure.view');
  figure.querySelector('script[data-shell]').textContent = found.volume;
  if (figure.view?.gl) { figure.view.load(1); figure.view.draw(); }
}

addEventListener('hashchange', go);
addEventListener('resize', () => mark());
go();
