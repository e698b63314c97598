// The page's moving parts: maps as surfaces that can be turned, and the curves' values under the pointer.
'use strict';

// A surface at a level of a volume of bytes (naive surface nets): positions, normals along the falling density, triangles.
function surface(volume, n, level) {
  const cells = new Int32Array(n * n * n).fill(-1), positions = [], normals = [], triangles = [];
  const at = (x, y, z) => volume[x + n * (y + n * z)];
  const smooth = (x, y, z) => {
    const i = Math.min(n - 2, Math.max(0, x | 0)), j = Math.min(n - 2, Math.max(0, y | 0)), k = Math.min(n - 2, Math.max(0, z | 0));
    const u = x - i, v = y - j, w = z - k;
    const plane = (h) => (at(i, j, h) * (1 - u) + at(i + 1, j, h) * u) * (1 - v) + (at(i, j + 1, h) * (1 - u) + at(i + 1, j + 1, h) * u) * v;
    return plane(k) * (1 - w) + plane(k + 1) * w;
  };
  const corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]];
  const edges = [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]];
  const value = new Float32Array(8);
  for (let z = 0; z < n - 1; z++) for (let y = 0; y < n - 1; y++) for (let x = 0; x < n - 1; x++) {
    let inside = 0;
    for (let c = 0; c < 8; c++) {
      value[c] = at(x + corners[c][0], y + corners[c][1], z + corners[c][2]) - level;
      if (value[c] > 0) inside++;
    }
    if (inside === 0 || inside === 8) continue;
    let px = 0, py = 0, pz = 0, count = 0;
    for (const [a, b] of edges) {
      if ((value[a] > 0) === (value[b] > 0)) continue;
      const t = value[a] / (value[a] - value[b]), p = corners[a], q = corners[b];
      px += p[0] + t * (q[0] - p[0]); py += p[1] + t * (q[1] - p[1]); pz += p[2] + t * (q[2] - p[2]); count++;
    }
    px = x + px / count; py = y + py / count; pz = z + pz / count;
    const d = 1.0;
    const gx = smooth(px - d, py, pz) - smooth(px + d, py, pz), gy = smooth(px, py - d, pz) - smooth(px, py + d, pz);
    const gz = smooth(px, py, pz - d) - smooth(px, py, pz + d), length = Math.hypot(gx, gy, gz) || 1;
    cells[x + n * (y + n * z)] = positions.length / 3;
    positions.push(2 * px / (n - 1) - 1, 2 * py / (n - 1) - 1, 2 * pz / (n - 1) - 1);
    normals.push(gx / length, gy / length, gz / length);
  }
  const step = [1, n, n * n];
  for (let z = 1; z < n - 1; z++) for (let y = 1; y < n - 1; y++) for (let x = 1; x < n - 1; x++) {
    const here = x + n * (y + n * z), inside = volume[here] > level;
    for (let axis = 0; axis < 3; axis++) {
      if (inside === (volume[here + step[axis]] > level)) continue;
      const s = step[(axis + 1) % 3], t = step[(axis + 2) % 3];
      const a = cells[here - s - t], b = cells[here - t], c = cells[here], d = cells[here - s];
      if (a < 0 || b < 0 || c < 0 || d < 0) continue;
      if (inside) triangles.push(a, b, c, a, c, d); else triangles.push(a, c, b, a, d, c);
    }
  }
  return { positions: new Float32Array(positions), normals: new Float32Array(normals), triangles: new Uint32Array(triangles) };
}

const VERTEX = `
attribute vec3 position; attribute vec3 normal; attribute float tint;
uniform mat3 turn; uniform vec2 stretch; uniform float zoom;
varying vec3 facing; varying float depth; varying float radius; varying float shade;
void main() {
  vec3 p = turn * position;
  facing = turn * normal; depth = p.z; radius = length(position); shade = tint;
  gl_Position = vec4(p.xy * stretch * zoom, -p.z * 0.4, 1.0);
}`;
const FRAGMENT = `
precision mediump float;
varying vec3 facing; varying float depth; varying float radius; varying float shade;
uniform float cut; uniform vec3 inner; uniform vec3 outer; uniform float opacity;
const vec3 best = vec3(0.169, 0.380, 0.780), middle = vec3(0.929, 0.859, 0.451), worst = vec3(0.749, 0.200, 0.161);
void main() {
  if (depth > cut) discard;
  vec3 n = normalize(facing);
  float back = gl_FrontFacing ? 0.0 : 1.0;
  n = mix(n, -n, back);
  vec3 colour = mix(inner, outer, smoothstep(0.2, 0.75, radius));
  if (shade >= 0.0) colour = mix(mix(best, middle, min(1.0, 2.0 * shade)), worst, max(0.0, 2.0 * shade - 1.0));
  float key = max(0.0, dot(n, normalize(vec3(-0.45, 0.65, 0.75)))), fill = max(0.0, dot(n, normalize(vec3(0.7, -0.3, 0.4))));
  float shine = pow(max(0.0, dot(n, normalize(vec3(-0.25, 0.35, 1.0)))), 28.0);
  vec3 lit = colour * (0.36 + 0.66 * key + 0.24 * fill) + 0.16 * shine;
  lit *= mix(0.7, 1.0, smoothstep(-0.9, 0.5, depth));
  gl_FragColor = vec4(mix(lit, lit * 0.55 + 0.04, back) * opacity, opacity);
}`;

const times = (a, b) => {
  const m = new Array(9);
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) m[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  return m;
};
const aboutX = (t) => [1, 0, 0, 0, Math.cos(t), -Math.sin(t), 0, Math.sin(t), Math.cos(t)];
const aboutY = (t) => [Math.cos(t), 0, Math.sin(t), 0, 1, 0, -Math.sin(t), 0, Math.cos(t)];
const START = times(aboutX(0.5), aboutY(-0.6));

// Views of one group are turned together.
const groups = new Map();
function groupOf(name) {
  if (!groups.has(name)) groups.set(name, { turn: START, zoom: 1, views: [] });
  return groups.get(name);
}

class View {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector('canvas');
    const gl = this.canvas.getContext('webgl2', { preserveDrawingBuffer: true }) || this.canvas.getContext('webgl', { preserveDrawingBuffer: true });
    if (!gl || (!(window.WebGL2RenderingContext && gl instanceof WebGL2RenderingContext) && !gl.getExtension('OES_element_index_uint'))) {
      figure.classList.add('flat'); // the slices stand beside it
      return;
    }
    this.gl = gl;
    this.group = groupOf(figure.dataset.group);
    this.group.views.push(this);
    this.edge = Number(figure.dataset.edge);
    const tint = figure.querySelector('script.tint');
    this.tint = tint && Uint8Array.from(atob(tint.textContent.trim()), (c) => c.charCodeAt(0));
    this.tintEdge = Number(figure.dataset.tintEdge);
    this.level = figure.querySelector('input[name=level]');
    this.cut = figure.querySelector('input[name=cut]');
    this.compile();
    this.level.addEventListener('input', () => { this.shape(0); this.draw(); });
    this.cut.addEventListener('input', () => this.draw());
    figure.querySelector('button').addEventListener('click', () => this.reset());
    this.listen();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.canvas);
    // The first body is the map; one that is a shell, such as a mask, lies around it and lets it be seen.
    this.bodies = [...figure.querySelectorAll('script[type="text/plain"]:not(.tint)')].map((script) => ({
      script, shell: 'shell' in script.dataset, count: 0, buffers: [0, 1, 2, 3].map(() => gl.createBuffer()),
    }));
    this.bodies.forEach((_, index) => this.load(index));
    this.draw();
    figure.classList.add('ready');
  }

  load(index) {
    const body = this.bodies[index];
    body.volume = Uint8Array.from(atob(body.script.textContent.trim()), (c) => c.charCodeAt(0));
    this.shape(index);
  }

  // Browsers keep a few drawing contexts only: one that is not needed any more is given back.
  release() {
    if (!this.gl) return;
    this.observer.disconnect();
    this.group.views = this.group.views.filter((view) => view !== this);
    this.gl.getExtension('WEBGL_lose_context')?.loseContext();
  }

  compile() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, 'position'); gl.bindAttribLocation(program, 1, 'normal'); gl.bindAttribLocation(program, 2, 'tint');
    gl.linkProgram(program); gl.useProgram(program);
    this.places = Object.fromEntries(['turn', 'stretch', 'zoom', 'cut', 'inner', 'outer', 'opacity'].map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.enable(gl.DEPTH_TEST);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  shape(index) {
    const gl = this.gl, body = this.bodies[index], mesh = surface(body.volume, this.edge, body.shell ? 127 : Number(this.level.value));
    [mesh.positions, mesh.normals].forEach((data, place) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, body.buffers[place]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    });
    if (this.tint && index === 0) {
      gl.bindBuffer(gl.ARRAY_BUFFER, body.buffers[3]);
      gl.bufferData(gl.ARRAY_BUFFER, this.tints(mesh.positions), gl.STATIC_DRAW);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, body.buffers[2]);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
    body.count = mesh.triangles.length;
    if (index === 0) this.figure.dataset.triangles = body.count / 3;
  }

  // What colours each corner, 0 to 1, between the points where it is known.
  tints(positions) {
    const m = this.tintEdge, n = this.edge, values = new Float32Array(positions.length / 3);
    const place = (at) => Math.min(m - 1.001, Math.max(0, (at + 1) / 2 * (n - 1) * m / n));
    for (let i = 0; i < values.length; i++) {
      let sum = 0;
      const [x, y, z] = [0, 1, 2].map((axis) => place(positions[3 * i + axis])), j = [x | 0, y | 0, z | 0];
      for (let c = 0; c < 8; c++) {
        const d = [c & 1, c >> 1 & 1, c >> 2], weight = [x, y, z].reduce((w, at, axis) => w * (d[axis] ? at - j[axis] : 1 - at + j[axis]), 1);
        sum += weight * this.tint[j[0] + d[0] + m * (j[1] + d[1] + m * (j[2] + d[2]))];
      }
      values[i] = sum / 255;
    }
    return values;
  }

  draw() {
    const gl = this.gl, canvas = this.canvas, ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const small = Math.min(width, height), t = this.group.turn;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(this.places.turn, false, new Float32Array([t[0], t[3], t[6], t[1], t[4], t[7], t[2], t[5], t[8]]));
    gl.uniform2f(this.places.stretch, small / width, small / height);
    gl.uniform1f(this.places.zoom, 1.3 * this.group.zoom);
    gl.uniform1f(this.places.cut, Number(this.cut.value) / 100);
    for (const body of this.bodies) {
      gl.uniform3f(this.places.inner, ...(body.shell ? [0.45, 0.6, 1.0] : [1.0, 0.76, 0.42]));
      gl.uniform3f(this.places.outer, ...(body.shell ? [0.45, 0.6, 1.0] : [0.3, 0.76, 0.7]));
      gl.uniform1f(this.places.opacity, body.shell ? 0.28 : 1.0);
      if (body.shell) gl.enable(gl.BLEND); else gl.disable(gl.BLEND);
      gl.depthMask(!body.shell);
      [0, 1].forEach((place) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, body.buffers[place]);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      });
      gl.disableVertexAttribArray(2);
      gl.vertexAttrib1f(2, -1); // not coloured
      if (this.tint && body === this.bodies[0]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, body.buffers[3]);
        gl.enableVertexAttribArray(2);
        gl.vertexAttribPointer(2, 1, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, body.buffers[2]);
      gl.drawElements(gl.TRIANGLES, body.count, gl.UNSIGNED_INT, 0);
    }
    gl.depthMask(true);
  }

  change(turn, zoom = 1) {
    this.group.turn = turn;
    this.group.zoom = Math.min(6, Math.max(0.4, this.group.zoom * zoom));
    this.group.views.forEach((view) => view.draw());
  }

  rotate(x, y) { this.change(times(times(aboutX(y), aboutY(x)), this.group.turn)); }

  reset() { this.group.zoom = 1; this.cut.value = this.cut.max; this.change(START); }

  listen() {
    const canvas = this.canvas, pointers = new Map();
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener('pointermove', (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const before = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (pointers.size === 2) this.change(this.group.turn, spread() / (before || 1));
      else this.rotate((event.clientX - last.x) * 0.01, (event.clientY - last.y) * 0.01);
    });
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener('wheel', (event) => { // a plain wheel scrolls the page
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      this.change(this.group.turn, Math.exp(-event.deltaY * 0.002));
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => {
      const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
      if (turns[event.key]) this.rotate(...turns[event.key]);
      else if (event.key === '+' || event.key === '=') this.change(this.group.turn, 1.15);
      else if (event.key === '-') this.change(this.group.turn, 1 / 1.15);
      else if (event.key === 'Home' || event.key === '0') this.reset();
      else return;
      event.preventDefault();
    });
  }
}

// A view is made when it comes near the window: browsers allow a few of them at a time.
const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  watcher.unobserve(entry.target);
  entry.target.view = new View(entry.target);
}), { rootMargin: '300px' });

// Values of all curves under the pointer.
function readout(svg) {
  const data = JSON.parse(svg.dataset.readout), line = svg.parentElement.querySelector('.readout'), rest = line.textContent;
  const bar = svg.appendChild(document.createElementNS(svg.namespaceURI, 'path'));
  const left = 46, right = 468, top = 12, bottom = 250;
  bar.setAttribute('class', 'pointer');
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect(), place = (event.clientX - box.left) / box.width * 480;
    const wanted = data.low + (place - left) / (right - left) * (data.high - data.low);
    let best = 0;
    data.x.forEach((x, index) => { if (Math.abs(x - wanted) < Math.abs(data.x[best] - wanted)) best = index; });
    bar.setAttribute('d', `M${left + (data.x[best] - data.low) / (data.high - data.low) * (right - left)} ${top}V${bottom}`);
    const values = data.series.filter((one) => one.y[best] != null).map((one) => `${one.name} ${one.y[best].toFixed(2)}`);
    line.textContent = `${data.word} ${(1 / data.x[best]).toFixed(1)} Å: ${values.join(', ')}`;
  });
  svg.addEventListener('pointerleave', () => { bar.removeAttribute('d'); line.textContent = rest; });
}

function enliven(root) {
  root.querySelectorAll('figure.view').forEach((figure) => watcher.observe(figure));
  root.querySelectorAll('svg[data-readout]').forEach(readout);
}
enliven(document);
