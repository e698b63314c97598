// Classes that are kept or dropped, and what goes on with them. The choice stands in the address after its #, too.
{
  const said = (id) => JSON.parse(document.getElementById(id).textContent);
  const settings = said('settings'), command = said('run-command'), place = (id) => document.getElementById(id);
  const cards = new Map([...document.querySelectorAll('.class')].map((card) => [Number(card.dataset.class), card]));
  const particles = (number) => Number(cards.get(number).dataset.particles);
  const all = [...cards.keys()], total = all.reduce((sum, number) => sum + particles(number), 0);
  const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, '\u202f');
  let kept = new Set(settings.kept), best = settings.best, way = 0, last = null;
  const past = [];

  // ---- the choice

  function fromAddress() {
    const words = new URLSearchParams(location.hash.slice(1)), wanted = Number(words.get('best'));
    if (words.has('keep')) kept = new Set(words.get('keep').split(',').map(Number).filter((number) => cards.has(number)));
    if (cards.has(wanted)) best = wanted;
  }

  const chosen = () => all.filter((number) => kept.has(number));
  const reference = () => (kept.has(best) ? best : chosen()[0]);

  function change(next, nextBest = best) {
    past.push([new Set(kept), best]);
    kept = next; best = nextBest;
    show();
  }

  function set(numbers, keep) {
    const next = new Set(kept);
    numbers.forEach((number) => (keep ? next.add(number) : next.delete(number)));
    change(next);
  }

  const actions = {
    all: () => change(new Set(all)),
    none: () => change(new Set()),
    other: () => change(new Set(all.filter((number) => !kept.has(number)))),
    rule: () => settings.rule && change(new Set(settings.rule)),
    undo: () => { if (past.length) { [kept, best] = past.pop(); show(); } },
  };

  // ---- what goes on

  // The run's own command, without an earlier choice, to be continued.
  function again(replaces) {
    if (command === null) return 'nextflow run … -resume';
    const names = replaces.map((name) => name.replace('.', '\\.')).join('|');
    const plain = names ? command.replace(new RegExp(`\\s+--(?:${names})(?:=|\\s+)(?:'[^']*'|"[^"]*"|\\S+)`, 'g'), '') : command;
    return /\s-resume\b/.test(plain) ? plain : `${plain} -resume`;
  }

  // Its pieces: what is chosen is marked.
  function pieces(one) {
    const marks = settings.marks, values = { [marks.keep]: chosen().join(','), [marks.best]: String(reference()) };
    const text = one.text.replace(marks.run, () => again(one.replaces));
    return text.split(new RegExp(`([${marks.keep}${marks.best}])`)).filter(Boolean).map((part) => [values[part] ?? part, part in values]);
  }

  function element(kind, text) {
    const made = document.createElement(kind);
    made.textContent = text;
    return made;
  }

  function show() {
    for (const [number, card] of cards) {
      const is = kept.has(number);
      card.classList.toggle('kept', is);
      card.querySelector('.toggle').setAttribute('aria-pressed', is);
      card.querySelector('.word').textContent = is ? 'kept' : 'dropped';
      card.querySelector('.reference')?.setAttribute('aria-pressed', is && number === reference());
    }
    const numbers = chosen(), sum = numbers.reduce((found, number) => found + particles(number), 0);
    const share = total ? 100 * sum / total : 0, unlike = settings.rule ? all.filter((number) => kept.has(number) !== settings.rule.includes(number)).length : 0;
    place('sum').replaceChildren(element('b', `${numbers.length} of ${all.length} classes kept`), `, ${count(sum)} of ${count(total)} particles, ${share.toFixed(share && share < 10 ? 1 : 0)} %${unlike ? `; ${unlike} unlike the rule` : ''}`);
    place('share').style.width = `${share}%`;
    const one = settings.ways[way], ready = numbers.length > 0 && one;
    place('command').replaceChildren(...(ready ? pieces(one).flatMap(([text, mark]) => {
      if (mark) return [element('mark', text)];
      return text.split(/(\s+)/).map((word) => (word.trim() ? element('span', word) : word)); // a line ends between words
    }) : ['Keep at least one class.']));
    place('command').classList.toggle('none', !ready);
    place('command').scrollLeft = place('command').scrollWidth; // where it is one long line, its numbers are seen
    place('copy').disabled = !ready;
    const started = command === null && one?.text.includes(settings.marks.run) ? 'The dots stand for how the run was started. ' : '';
    place('note').textContent = ready ? started + one.note : '';
    document.querySelectorAll('[data-way]').forEach((button) => button.setAttribute('aria-pressed', Number(button.dataset.way) === way));
    document.querySelector('[data-do=undo]').disabled = past.length === 0;
    filter();
    const words = `keep=${numbers.join(',')}${settings.references && numbers.length ? `&best=${reference()}` : ''}`;
    if (location.hash.slice(1) !== words) history.replaceState(null, '', `#${words}`);
  }

  async function copy() {
    if (place('copy').disabled) return;
    const text = place('command').textContent;
    try { await navigator.clipboard.writeText(text); } catch { // such as from a file, in some browsers
      getSelection().selectAllChildren(place('command'));
      document.execCommand('copy');
    }
    place('copy').textContent = 'copied';
    setTimeout(() => { place('copy').textContent = 'copy'; }, 1500);
  }

  // ---- order, and what is shown

  const value = (card, name) => (card.dataset[name] === '' ? null : Number(card.dataset[name]));
  const orders = {
    class: () => 0,
    particles: (a, b) => value(b, 'particles') - value(a, 'particles'),
    resolution: (a, b) => (value(a, 'resolution') ?? 1e9) - (value(b, 'resolution') ?? 1e9),
    score: (a, b) => (value(b, 'score') ?? -1e9) - (value(a, 'score') ?? -1e9),
    kept: (a, b) => kept.has(Number(b.dataset.class)) - kept.has(Number(a.dataset.class)),
  };

  function sort() {
    const focused = document.activeElement, order = orders[place('sort').value];
    place('classes').append(...[...cards.values()].sort((a, b) => order(a, b) || a.dataset.class - b.dataset.class));
    if (focused !== document.activeElement) focused?.focus({ preventScroll: true });
  }

  function filter() {
    const wanted = place('show').value;
    let seen = 0;
    for (const [number, card] of cards) {
      const is = kept.has(number), differs = settings.rule && is !== settings.rule.includes(number);
      card.hidden = (wanted === 'kept' && !is) || (wanted === 'dropped' && is) || (wanted === 'differs' && !differs);
      seen += !card.hidden;
    }
    place('nothing').hidden = seen > 0;
  }

  // ---- by mouse and finger

  const inOrder = () => [...place('classes').children].filter((card) => !card.hidden).map((card) => Number(card.dataset.class));

  place('classes').addEventListener('click', (event) => {
    const card = event.target.closest('.class'), number = Number(card?.dataset.class);
    if (!card || event.target.closest('figure.view')) return;
    if (event.target.closest('.reference')) { change(new Set(kept).add(number), number); return; }
    const order = inOrder(), from = order.indexOf(last), to = order.indexOf(number), keep = !kept.has(number);
    const range = event.shiftKey && from >= 0 ? order.slice(Math.min(from, to), Math.max(from, to) + 1) : [number];
    if (event.shiftKey) getSelection().removeAllRanges();
    last = number;
    set(range, keep);
  });
  document.querySelectorAll('[data-do]').forEach((button) => button.addEventListener('click', () => actions[button.dataset.do]()));
  document.querySelectorAll('[data-way]').forEach((button) => button.addEventListener('click', () => { way = Number(button.dataset.way); show(); }));
  place('copy').addEventListener('click', copy);
  place('sort').addEventListener('change', sort);
  place('show').addEventListener('change', filter);
  if (place('size')) place('size').value = parseFloat(getComputedStyle(place('classes')).getPropertyValue('--tile')) || place('size').value;
  place('size')?.addEventListener('input', (event) => place('classes').style.setProperty('--tile', `${event.target.value}rem`));
  place('invert')?.addEventListener('change', (event) => place('classes').classList.toggle('inverted', event.target.checked));

  // ---- by keyboard

  // The class beside, above or below another one, as they stand on the page.
  function beside(card, key) {
    const shown = [...place('classes').children].filter((one) => !one.hidden), index = shown.indexOf(card);
    if (index < 0) return shown[0];
    if (key === 'Home') return shown[0];
    if (key === 'End') return shown.at(-1);
    if (key === 'ArrowLeft' || key === 'ArrowRight') return shown[index + (key === 'ArrowRight' ? 1 : -1)];
    const here = card.getBoundingClientRect(), sign = key === 'ArrowDown' ? 1 : -1;
    const rows = shown.map((one) => [one, one.getBoundingClientRect()]).filter(([, box]) => sign * (box.top - here.top) > 4);
    const near = Math.min(...rows.map(([, box]) => sign * (box.top - here.top)));
    const row = rows.filter(([, box]) => sign * (box.top - here.top) < near + 4);
    return row.sort((a, b) => Math.abs(a[1].left - here.left) - Math.abs(b[1].left - here.left))[0]?.[0];
  }

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, canvas, #command')) return;
    const card = event.target.closest('.class'), number = card && Number(card.dataset.class), key = event.key;
    if (/^(Arrow.*|Home|End)$/.test(key)) {
      const next = beside(card, key);
      if (next) next.querySelector('.toggle').focus();
      if (next) next.scrollIntoView({ block: 'nearest' });
      if (!card && !next) return;
    } else if (card && (key === 'k' || key === 'd')) set([number], key === 'k');
    else if (card && key === 'b' && settings.references) change(new Set(kept).add(number), number);
    else if (/^[1-9]$/.test(key) && cards.has(Number(key))) { set([Number(key)], !kept.has(Number(key))); cards.get(Number(key)).querySelector('.toggle').focus(); }
    else if (key === 'c') copy();
    else if ({ a: 1, n: 1, o: 1, r: 1, u: 1 }[key]) actions[{ a: 'all', n: 'none', o: 'other', r: 'rule', u: 'undo' }[key]]();
    else return;
    event.preventDefault();
  });

  // Browsers keep a few drawing contexts only: the surfaces of classes that are far away are given back.
  const far = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const figure = entry.target;
    if (entry.isIntersecting || !figure.view?.gl) return;
    const fresh = figure.cloneNode(true);
    fresh.querySelectorAll('input').forEach((input) => { input.value = figure.querySelector(`input[name=${input.name}]`).value; });
    fresh.classList.remove('ready');
    delete fresh.dataset.triangles;
    far.unobserve(figure);
    figure.view.release();
    figure.replaceWith(fresh);
    far.observe(fresh);
    watcher.observe(fresh);
  }), { rootMargin: '700px' });
  document.querySelectorAll('.class figure.view').forEach((figure) => far.observe(figure));

  addEventListener('hashchange', () => { fromAddress(); show(); });
  fromAddress();
  sort();
  show();
}
