"""
A browser's session: one robot, and on a switch another beside it from the same start; what may be asked of it, as JSON
with the key 'do', and what it tells.
"""

import json
import random
import secrets
from collections import deque
from inspect import signature

RATE = 25  # environment steps a second at speed 1
FASTEST = 8
MAX_COMMANDS = 32  # that wait to be obeyed: more are refused


class Session:
    """its commands wait in a queue until the thread that computes obeys them, between two steps"""

    def __init__(self, drives):
        self.id = secrets.token_urlsafe(16)
        self.drives = drives
        self.drive = drives.open()
        self.beside = None
        self.beside_prompt = None
        self.speed, self.paused = drives.page.speed, False
        self.credit = 0.0  # steps that are due
        self.commands = deque()
        self.error = ''

    def close(self):
        self.drives.close(self.drive)
        if self.beside is not None:
            self.drives.beside.close(self.beside)

    def robots(self):
        return [self.drive] if self.beside is None else [self.drive, self.beside]

    def on_the_way(self):
        return [drive for drive in self.robots() if not drive.over]

    def due(self):
        """how many steps to take in this tick of 1 / RATE s"""
        if self.paused or not self.on_the_way():
            self.credit = 0.0
            return 0
        self.credit += self.speed
        whole = int(self.credit)
        self.credit -= whole
        return whole

    # ------------------------------------------------------------------------------
    # commands

    def take(self, text):
        """a message of the browser: kept until it is obeyed. ValueError where it is no command"""
        try:
            command = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            raise ValueError('the message is not JSON') from None
        if not isinstance(command, dict) or command.get('do') not in COMMANDS:
            raise ValueError(f'no such command. There are: {", ".join(COMMANDS)}')
        try:
            arguments = {name: value for name, value in command.items() if name != 'do'}
            signature(COMMANDS[command['do']]).bind(self, **arguments)
        except TypeError as e:
            raise ValueError(f'the command has other arguments than it takes: {e}') from None
        if len(self.commands) >= MAX_COMMANDS:
            raise ValueError('too many commands at once. Wait a moment')
        self.commands.append(command)

    def obey(self):
        """all commands that wait; the first that cannot be obeyed is said, the others are"""
        while self.commands:
            command = self.commands.popleft()
            try:
                COMMANDS[command.pop('do')](self, **command)
                self.error = ''
            except ValueError as e:
                self.error = str(e)

    def fail(self):
        """something went wrong that no command could: its robots stand"""
        self.commands.clear()
        for drive in self.robots():
            drive.over = True
        self.published = {**self.published, 'error': 'Something failed on the server, and the robot stands. Restart'}

    def ask(self, prompt='', bd=None, seed=None, start=None):
        """a new request, from where the robot is; or from a start, as a permalink holds it"""
        prompt, bd = as_prompt(prompt), as_numbers(bd)
        self.drives.check(prompt, bd)
        if seed is not None or start is not None:
            self.drives.begin(self.drive, as_seed(seed or 0), as_numbers(start) or ())
        self.drives.ask(self.drive, prompt, bd)
        self.paused = False
        self.start_beside()

    def put(self, at):
        """the robot to a point of the picture: an episode begins there"""
        self.begin(self.drive.seed, as_point(at))

    def push(self, at):
        """something else pushes towards a point of the picture"""
        self.drives.page.push(self.drive.env, *as_point(at))

    def restart(self):
        """the same request again, from the same start"""
        self.begin(self.drive.seed, self.drive.start)

    def another(self):
        """.. from another start"""
        self.begin(random.randrange(*self.drives.page.seeds))

    def home(self):
        """.. from the start of seed 0"""
        self.begin(0)

    def begin(self, seed, start=()):
        asked = self.drive.prompt or self.drive.bd
        self.drives.begin(self.drive, seed, start)
        self.drive.over = not asked and self.drives.needs_request
        self.start_beside()

    def pause(self, on):
        self.paused = bool(on)

    def step(self):
        """a single step"""
        self.paused = True
        if self.on_the_way():
            self.drives.step(self.on_the_way())

    def set_speed(self, speed):
        (self.speed,) = as_numbers([speed])
        self.speed = min(max(self.speed, 0.1), FASTEST)

    def set_beside(self, on, prompt=''):
        """the same start beside it: with another prompt or with nothing asked, or what the policy makes up"""
        if self.drives.beside is None:
            raise ValueError('there is nothing to put beside it here')
        prompt = as_prompt(prompt)
        if prompt:
            self.drives.check(prompt, None)
        self.beside_prompt = prompt
        if on and self.beside is None:
            self.beside = self.drives.beside.open()
        elif not on and self.beside is not None:
            self.drives.beside.close(self.beside)
            self.beside = None
        if on and (self.drive.act or not self.drive.over):
            self.begin(self.drive.seed, self.drive.start)
        else:
            self.start_beside()

    def start_beside(self):
        if self.beside is not None:
            self.drives.beside.begin(self.beside, self.drive, self.beside_prompt)

    # ------------------------------------------------------------------------------
    # what it tells

    def publish(self):
        """what there is to see now, for `news`: made by the thread that computes, read by others"""
        page = self.drives.page
        robots = []
        for drive in self.robots():
            robots.append(
                {
                    'episode': drive.episode,
                    'asked': {
                        'prompt': drive.prompt,
                        'bd': drive.bd,
                        'read_as': drive.read_as,
                        **drive.asked,
                        'understood': drive.understood,
                        'sure': drive.sure,
                        'unclear': bool(drive.others),
                    },
                    'path': drive.path if page.bd_is_point else [],  # only grows in an episode: `steps` of it are news
                    'steps': len(drive.act),
                    'shapes': page.shapes(drive.env, drive.obs),
                    'future': drive.future if page.bd_is_point and not drive.over else [],
                    'over': drive.over,
                    'seed': drive.seed,
                    'start': drive.start,
                    'progress': self.drives.progress(drive),
                }
            )
        self.published = {
            'robots': robots,
            'suggestions': self.drive.others + list(page.suggestions(self.drive.env)),
            'speed': self.speed,
            'paused': self.paused,
            'error': self.error,
        }


COMMANDS = {
    'ask': Session.ask,
    'put': Session.put,
    'push': Session.push,
    'restart': Session.restart,
    'another': Session.another,
    'home': Session.home,
    'pause': Session.pause,
    'step': Session.step,
    'speed': Session.set_speed,
    'beside': Session.set_beside,
}


def news(published, told):
    """
    What a browser does not know yet. told: [(episode, points of its path)] of the robots, what it does -> a message,
    and what it then knows
    """
    robots, knows = [], []
    for i, robot in enumerate(published['robots']):
        n = robot['steps'] + 1
        episode, since = told[i] if i < len(told) else (None, 0)
        some = dict(robot)
        if episode == robot['episode']:
            del some['asked']
        else:
            since = 0
        some['since'] = since
        some['path'] = [[round(float(x), 2) for x in bd] for bd in robot['path'][since:n]]
        robots.append(some)
        knows.append((robot['episode'], n))
    return {**published, 'robots': robots}, knows


# ------------------------------------------------------------------------------
# what comes from outside


def as_prompt(prompt):
    """-> the prompt, None where it is empty"""
    if not isinstance(prompt, str):
        raise ValueError('a prompt is a string')
    return ' '.join(prompt.split()) or None


def as_numbers(given):
    """up to 32 numbers -> floats, or None"""
    if given is None:
        return None
    fine = isinstance(given, list) and 0 < len(given) <= 32
    if not fine or not all(type(x) in (int, float) and abs(x) < 1e9 for x in given):  # nor nan, nor inf
        raise ValueError('a point is a list of numbers')
    return [float(x) for x in given]


def as_point(given):
    """-> x, y"""
    numbers = as_numbers(given)
    if numbers is None or len(numbers) != 2:
        raise ValueError('a point of the picture is a list of two numbers')
    return numbers


def as_seed(seed):
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError('a seed is a whole number, 0 to 2 ** 32 - 1')
    return seed
