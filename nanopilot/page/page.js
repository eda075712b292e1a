// The page: what people type goes to the server as JSON, what the server says is drawn. All texts are set as text, never
// as markup. What a message holds: sessions.py.
'use strict'

const $ = id => document.getElementById(id)
const still = matchMedia('(prefers-reduced-motion: reduce)')
const SPEEDS = [0.25, 1, 2, 4, 8]
const STILL_MS = 1000 // between two pictures, for those who want no motion
const PAST = '#7a3fb5'

let socket = null
let hello = null // what the server said of the data set
let state = null // its newest message
let robots = [] // {asked, path}: what was told of each in pieces; image: what its environment draws
let point = null // where it is to end up, [x, y]
let cursor = null // of the keyboard, a point of the picture
let drag = null // where a drag is now
let drawnAt = 0
const backgrounds = new Map() // of each canvas, as an image

// ------------------------------------------------------------------------------
// the server

function connect() {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  socket = new WebSocket(`${scheme}://${location.host}/ws`)
  socket.onmessage = event => receive(JSON.parse(event.data))
  socket.onclose = event => {
    hello = null
    if (event.code === 4429) return
    say('connection', 'the server is gone, trying again ..')
    setTimeout(connect, 1000)
  }
}

function send(command) {
  if (hello && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command))
}

function receive(message) {
  if (message.waiting) say('connection', `all robots are taken: you are number ${message.waiting} in the queue`)
  else if (message.full) say('connection', `${message.full} people drive and as many wait. Try again later`)
  else if (message.hello) begin(message.hello)
  else if (message.robots) update(message)
  else if (message.error) say('error', message.error)
}

function begin(found) {
  hello = found
  robots = []
  backgrounds.clear()
  say('connection', 'connected')
  say('title', hello.title)
  const takes = hello.takes
  $('prompt').hidden = !takes.prompt
  $('prompt-label').hidden = !takes.prompt && hello.bd.length
  if (!takes.prompt) say('prompt-label', 'Nothing is asked: it does what it has learned')
  showBeside(takes)
  $('gif').hidden = !takes.gif
  $('bds').hidden = !hello.bd.length
  $('bds-label').hidden = !takes.prompt
  $('bds-on').checked = !takes.prompt
  $('sliders').replaceChildren(...hello.bd.map(slider))
  $('examples-box').open = innerWidth > 800
  $('examples').replaceChildren(...hello.examples.map(example))
  showSpeed(SPEEDS.indexOf(hello.speed))
  const keys = []
  if (takes.point) keys.push('Click: end there.')
  if (takes.put) keys.push('Drag: put the robot there.')
  if (takes.push) keys.push('Click beside it: something pushes it that way.')
  if (takes.point) keys.push('On the keyboard: arrows move a cross, Enter: end there, P: put it there.')
  if (takes.push) keys.push('On the keyboard: left and right push.')
  keys.push('Space: pause.')
  say('keys', keys.join(' '))
  $('json').href = `/drive.json?session=${hello.session}`
  $('gif').href = `/drive.gif?session=${hello.session}`
  askAsLinked()
}

// a number that is asked for
function slider(bd, i) {
  const row = document.createElement('div')
  const label = document.createElement('label')
  const input = document.createElement('input')
  const value = document.createElement('output')
  row.className = 'row slider'
  input.id = label.htmlFor = `bd-${i}`
  label.textContent = bd.name
  Object.assign(input, {type: 'range', min: bd.low, max: bd.high, step: bd.step})
  const show = () => {
    value.textContent = short(Number(input.value))
  }
  input.oninput = show
  input.onchange = () => {
    $('bds-on').checked = true
    ask()
  }
  input.show = show
  show()
  row.append(label, input, value)
  return row
}

function short(x) {
  return String(Number(x.toPrecision(4)))
}

function showBeside(takes) {
  $('beside-box').hidden = !takes.beside
  $('beside-prompt').hidden = takes.beside !== 'other' || !takes.prompt
  const dream = takes.beside === 'dream'
  say('beside-title', dream ? 'Beside it: a dream' : 'Beside it: does it listen?')
  let what = 'The same start with nothing asked'
  if (dream) what = 'From the same start what the policy makes up: its actions, and what it would see then'
  else if (takes.prompt) what = 'The same start with this prompt, or with none'
  say('beside-what', what)
}

function showSpeed(choice) {
  $('speed').value = choice
  say('speed-value', `${SPEEDS[choice]}x`)
  $('speed').setAttribute('aria-valuetext', `${SPEEDS[choice]} times`)
}

function example(prompt) {
  const item = document.createElement('li')
  const button = document.createElement('button')
  button.type = 'button'
  button.textContent = prompt
  button.onclick = () => {
    $('prompt').value = prompt
    ask()
  }
  item.append(button)
  return item
}

// a permalink: ?prompt=..&bd=..&seed=..&start=..
function askAsLinked() {
  const given = new URLSearchParams(location.search)
  const numbers = name => given.has(name) ? given.get(name).split(',').map(Number) : null
  if (!given.has('prompt') && !given.has('bd')) return
  const prompt = given.get('prompt') || ''
  $('prompt').value = prompt
  const bd = numbers('bd')
  if (hello.takes.point) point = bd
  else if (bd) setSliders(bd)
  send({do: 'ask', prompt, bd, seed: Number(given.get('seed') || 0), start: numbers('start')})
}

function setSliders(bd) {
  $('bds-on').checked = true
  bd.slice(0, hello.bd.length).forEach((x, i) => {
    $(`bd-${i}`).value = x
    $(`bd-${i}`).show()
  })
}

function link() {
  const robot = state.robots[0]
  const asked = robots[0].asked
  const found = new URLSearchParams()
  if (asked.prompt) found.set('prompt', asked.prompt)
  if (asked.bd) found.set('bd', asked.bd.join(','))
  found.set('seed', robot.seed)
  if (robot.start.length) found.set('start', robot.start.join(','))
  return `/?${found}`
}

function ask() {
  let bd = point
  if (hello && hello.bd.length && $('bds-on').checked) bd = hello.bd.map((_, i) => Number($(`bd-${i}`).value))
  send({do: 'ask', prompt: $('prompt').value, bd})
}

// ------------------------------------------------------------------------------
// what there is to see

function update(message) {
  state = message
  robots.length = message.robots.length
  message.robots.forEach((robot, i) => {
    if (robot.asked) robots[i] = {asked: robot.asked, path: [], image: robots[i] && robots[i].image}
    robots[i].path.push(...robot.path)
  })
  say('error', message.error)
  const [robot] = message.robots
  suggest(hello.takes.prompt ? message.suggestions : [])
  showPanel(robot, robots[0].asked)
  if ($('beside-figure').hidden !== message.robots.length < 2) {
    $('beside-figure').hidden = message.robots.length < 2
    backgrounds.clear() // the pictures have another size now
  }
  if (message.robots.length > 1) {
    say('beside-caption', besideCaption(message.robots[1], robots[1].asked))
  }
  const now = performance.now()
  if (!still.matches || robot.over || message.paused || now - drawnAt > STILL_MS) {
    drawnAt = now
    message.robots.forEach((robot, i) => load(robot, robots[i]))
    requestAnimationFrame(draw)
  }
}

// the picture that an environment draws of itself: the one before stays until it is read
function load(robot, known) {
  const shape = robot.shapes.find(shape => shape.kind === 'image')
  if (!shape) return
  const image = new Image()
  image.onload = () => {
    known.image = image
    requestAnimationFrame(draw)
  }
  image.src = shape.data
}

function suggest(prompts) {
  const told = JSON.stringify(prompts)
  $('examples-box').hidden = !prompts.length && !hello.examples.length
  if ($('suggestions').dataset.told === told) return
  $('suggestions').dataset.told = told
  $('suggestions').replaceChildren(...prompts.map(example))
}

function besideCaption(robot, {prompt}) {
  let what = prompt ? `"${prompt}"` : 'no prompt'
  if (!hello.takes.prompt) what = 'nothing is asked'
  if (hello.takes.beside === 'dream') what = 'a dream'
  return [`${what}: ${ending(robot)}`, ...robot.progress.readings.map(([name, value]) => `${name}: ${value}`)].join(', ')
}

function ending(robot) {
  if (!robot.over) return `step ${robot.steps}`
  return robot.steps ? `over after ${robot.steps} steps` : 'it waits'
}

function showPanel(robot, asked) {
  const {progress} = robot
  say('pause', state.paused ? 'Go on' : 'Pause')
  say('caption', ending(robot) + (state.paused ? ', paused' : ''))
  let verdict = ''
  if (robot.over && robot.steps && progress.ok !== null) {
    verdict = progress.ok ? '✓ carried out' : '✗ not carried out'
  }
  say('verdict', verdict)
  $('verdict').className = progress.ok ? 'yes' : 'no'
  const words = [asked.prompt ? `"${asked.prompt}"` : '', asked.bd ? target(asked.bd) : '']
  say('asked', words.filter(Boolean).join(', '))
  const goals = asked.goals.map((goal, i) => {
    const step = progress.steps[i]
    const passed = step !== null && step !== undefined
    const text = passed ? `✓ ${goal}: step ${step}` : robot.over && robot.steps ? `✗ ${goal}: missed` : `${goal}`
    return [text, passed ? 'passed' : robot.over && robot.steps ? 'wrong' : '']
  })
  asked.avoid.forEach((goal, i) => {
    const entered = progress.entered[i]
    goals.push([entered ? `✗ keep off ${goal}: entered` : `✓ keep off ${goal}`, entered ? 'off wrong' : 'off'])
  })
  list('goals', goals)
  const read = Object.entries(asked.read_as).map(([word, known]) => {
    return [known ? `"${word}" is read as "${known}"` : `"${word}" is not understood`, '']
  })
  if (asked.unclear) read.unshift(['it may be meant otherwise: see the first of the examples', ''])
  if (asked.understood) read.unshift([`understood, ${(100 * asked.sure).toFixed(0)}% sure: ${asked.understood}`, ''])
  list('notes', [...read, ...asked.notes.map(note => [note, ''])])
  say('readings', progress.readings.map(([name, value]) => `${name}: ${value}`).join(', '))
  $('link').href = link()
  $('point-row').hidden = !point
  if (point) say('point', `✕ it is to end at ${point.map(x => x.toFixed(0)).join(', ')}`)
}

function target(bd) {
  if (hello.takes.point) return `end at ${bd.map(x => x.toFixed(0)).join(', ')}`
  return bd.map((x, i) => `${hello.bd[i].name} ${short(x)}`).join(', ')
}

// a text is set where it is another: what reads the page aloud is not told the same again
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text
}

function list(id, rows) {
  const items = $(id).children
  rows.forEach(([text, kind], i) => {
    const item = items[i] || $(id).appendChild(document.createElement('li'))
    if (item.textContent !== text) item.textContent = text
    if (item.className !== kind) item.className = kind
  })
  while (items.length > rows.length) items[rows.length].remove()
}

// ------------------------------------------------------------------------------
// drawing: shapes in the data set's units, y up

function resize() {
  backgrounds.clear()
  draw()
}

// a canvas has as many pixels as the screen has there; its background is drawn once
function fit(canvas) {
  const [x0, y0, x1, y1] = hello.view
  canvas.style.aspectRatio = `${x1 - x0} / ${y1 - y0}`
  canvas.width = Math.max(Math.round(canvas.clientWidth * devicePixelRatio), 1)
  canvas.height = Math.max(Math.round(canvas.width * (y1 - y0) / (x1 - x0)), 1)
  const image = new OffscreenCanvas(canvas.width, canvas.height)
  shapes(pen(image), hello.background)
  backgrounds.set(canvas, image)
}

function draw() {
  if (!hello || !state) return
  drawRobot($('picture'), state.robots[0], robots[0])
  if (state.robots.length > 1) drawRobot($('beside-picture'), state.robots[1], robots[1])
}

function pen(canvas) {
  const [x0, y0, x1] = hello.view
  const scale = canvas.width / (x1 - x0)
  const context = canvas.getContext('2d')
  return {context, scale, at: (x, y) => [(x - x0) * scale, canvas.height - (y - y0) * scale]}
}

function drawRobot(canvas, robot, known) {
  if (!backgrounds.has(canvas)) fit(canvas)
  const p = pen(canvas)
  p.context.clearRect(0, 0, canvas.width, canvas.height)
  p.context.drawImage(backgrounds.get(canvas), 0, 0)
  shapes(p, known.asked.shapes)
  if (hello.takes.point) {
    const trace = known.path
    polyline(p, trace, '#ffffff', 6, [])
    polyline(p, trace, PAST, 3, [])
    shapes(p, trace.slice(0, 1).map(([x, y]) => ({kind: 'circle', x, y, radius: 2.4, fill: '#ffffff', edge: PAST, width: 2})))
    p.context.globalAlpha = 0.45
    polyline(p, [...trace.slice(-1), ...robot.future], '#1d2433', 1.5, [2, 5])
    shapes(p, robot.future.map(([x, y]) => ({kind: 'circle', x, y, radius: 1.2, fill: '#1d2433'})))
    p.context.globalAlpha = 1
  }
  shapes(p, robot.shapes, known.image)
  const mark = drag || cursor
  if (mark && canvas.id === 'picture') cross(p, mark)
}

function cross(p, [x, y]) {
  const [x0, y0, x1, y1] = hello.view
  polyline(p, [[x0, y], [x1, y]], '#f0a020', 2, [])
  polyline(p, [[x, y0], [x, y1]], '#f0a020', 2, [])
}

function polyline({context, at}, points, colour, width, dashes) {
  context.beginPath()
  points.forEach(([x, y]) => context.lineTo(...at(x, y)))
  context.strokeStyle = colour
  context.lineWidth = width * devicePixelRatio
  context.lineJoin = context.lineCap = 'round'
  context.setLineDash(dashes.map(d => d * devicePixelRatio))
  context.stroke()
  context.setLineDash([])
}

function shapes(p, list, image) {
  const {context, at, scale} = p
  for (const shape of list) {
    if (shape.kind === 'line') {
      polyline(p, shape.points, shape.edge, shape.width, shape.dashed ? [5, 4] : [])
      continue
    }
    if (shape.kind === 'image') {
      if (image) context.drawImage(image, ...at(shape.x, shape.y + shape.height), shape.width * scale, shape.height * scale)
      continue
    }
    context.fillStyle = shape.fill
    if (shape.kind === 'text') {
      context.font = `${Math.max(shape.size * scale, 7)}px system-ui, sans-serif`
      context.textAlign = 'center'
      context.textBaseline = 'middle'
      context.strokeStyle = '#ffffff'
      context.lineWidth = 3 * devicePixelRatio
      context.lineJoin = 'round'
      context.strokeText(shape.text, ...at(shape.x, shape.y))
      context.fillText(shape.text, ...at(shape.x, shape.y))
      continue
    }
    context.beginPath()
    if (shape.kind === 'circle') context.arc(...at(shape.x, shape.y), shape.radius * scale, 0, 2 * Math.PI)
    else shape.points.forEach(([x, y]) => context.lineTo(...at(x, y)))
    context.closePath()
    if (shape.fill) context.fill()
    if (!shape.edge) continue
    context.strokeStyle = shape.edge
    context.lineWidth = shape.width * devicePixelRatio
    context.stroke()
  }
}

// ------------------------------------------------------------------------------
// what people do

function whereIs(event) {
  const canvas = $('picture')
  const {left, top, width, height} = canvas.getBoundingClientRect()
  const [x0, y0, x1, y1] = hello.view
  const inside = (share, low, high) => low + Math.min(Math.max(share, 0), 1) * (high - low)
  return [inside((event.clientX - left) / width, x0, x1), inside(1 - (event.clientY - top) / height, y0, y1)]
}

function endAt(xy) {
  point = xy
  ask()
}

function onPointer() {
  const canvas = $('picture')
  let from = null
  canvas.onpointerdown = event => {
    if (!hello) return
    from = [event.clientX, event.clientY]
    canvas.setPointerCapture(event.pointerId)
  }
  canvas.onpointermove = event => {
    if (!from || !hello || !hello.takes.put) return
    if (drag || Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 8) {
      drag = whereIs(event)
      draw()
    }
  }
  canvas.onpointerup = event => {
    if (!from || !hello) return
    if (drag) send({do: 'put', at: drag})
    else if (hello.takes.point) endAt(whereIs(event))
    else if (hello.takes.push) send({do: 'push', at: whereIs(event)})
    from = drag = null
  }
  canvas.onpointercancel = () => {
    from = drag = null
  }
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}

function onKey(event) {
  if (!hello) return
  const [x0, y0, x1, y1] = hello.view
  const middle = [(x0 + x1) / 2, (y0 + y1) / 2]
  const arrow = ARROWS[event.key]
  if (arrow && hello.takes.push) {
    send({do: 'push', at: [arrow[0] < 0 ? x0 : x1, middle[1]]})
  } else if (arrow) {
    const stride = (x1 - x0) / (event.shiftKey ? 10 : 40)
    const [x, y] = cursor || middle
    cursor = [Math.min(Math.max(x + stride * arrow[0], x0), x1), Math.min(Math.max(y + stride * arrow[1], y0), y1)]
  } else if (event.key === 'Enter' && cursor && hello.takes.point) {
    endAt(cursor)
  } else if (event.key.toLowerCase() === 'p' && cursor && hello.takes.put) {
    send({do: 'put', at: cursor})
  } else if (event.key === ' ') {
    togglePause()
  } else if (event.key === 'Escape') {
    cursor = null
  } else {
    return
  }
  event.preventDefault()
  draw()
}

function togglePause() {
  if (state) send({do: 'pause', on: !state.paused})
}

function setBeside() {
  send({do: 'beside', on: $('beside').checked, prompt: $('beside-prompt').value})
}

$('ask').onsubmit = event => {
  event.preventDefault()
  ask()
}
$('forget').onclick = () => {
  point = null
  $('point-row').hidden = true
  if ($('prompt').value.trim()) ask()
}
$('bds-on').onchange = ask
$('pause').onclick = togglePause
$('step').onclick = () => send({do: 'step'})
$('restart').onclick = () => send({do: 'restart'})
$('another').onclick = () => send({do: 'another'})
$('home').onclick = () => send({do: 'home'})
$('speed').oninput = () => {
  showSpeed($('speed').value)
  send({do: 'speed', speed: SPEEDS[$('speed').value]})
}
$('beside').onchange = setBeside
$('beside-prompt').onchange = setBeside
$('picture').onkeydown = onKey
$('picture').onblur = () => {
  cursor = null
  draw()
}
onPointer()
addEventListener('resize', resize)
connect()
