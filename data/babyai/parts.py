"""
Missions of several parts, taken apart: what a demonstration did first, what it had still to do, from which step on.

"Go to the red box, then go to the grey door" is a tree of minigrid's instructions, which knows what of it is done.
"""

from minigrid.envs.babyai.core import verifier


def actions_of(instr):
    """the single actions that an instruction asks for, a list"""
    if isinstance(instr, verifier.SeqInstr):
        return actions_of(instr.instr_a) + actions_of(instr.instr_b)
    return [instr]


def done_of(instr, is_done):
    """those of actions_of(instr) that have been carried out; is_done: has all of it been?"""
    if is_done:
        return actions_of(instr)
    if not isinstance(instr, verifier.SeqInstr):
        return []
    first = done_of(instr.instr_a, instr.a_done == 'success')
    return first + done_of(instr.instr_b, instr.b_done == 'success')


def words_for(instr, words):
    """a sentence that asks for what is left of an instruction; words: of the actions that are left, {action: str}"""
    if not isinstance(instr, verifier.SeqInstr):
        return words.get(instr, '')
    first, second = words_for(instr.instr_a, words), words_for(instr.instr_b, words)
    if not (first and second):
        return first or second
    joint = {verifier.BeforeInstr: ', then ', verifier.AfterInstr: ' after you ', verifier.AndInstr: ' and '}
    return first + joint[type(instr)] + second


def is_seen_from(action):
    """does it name a place as seen from where the episode begins, as "the box behind you" does?"""
    return any(isinstance(thing, verifier.ObjDesc) and thing.loc for thing in vars(action).values())


class Parts:
    """What each part of a mission asks for, and which steps carried it out; none of a mission of one part."""

    def __init__(self, env):
        """env: minigrid's, just reset"""
        self.instr = env.instrs
        actions = actions_of(env.instrs)
        self.is_one = len(actions) == 1
        self.left = {action: action.surface(env) for action in actions}  # and how each is asked for
        self.first = 0  # step of what is being done now
        self.found = []  # [sentence, its first step, the one after the last; None: the episode's end]

    def see(self, T, is_over):
        """after each step, T so far: what of the mission is done now? is_over: all of it"""
        done = [action for action in done_of(self.instr, is_over) if action in self.left]
        if not done:
            return
        for action in done:
            self.add([action], self.left.pop(action), T)
        self.first = T
        if len(self.left) > 1:  # the last one will be added when it is done
            self.add(self.left, words_for(self.instr, self.left), None)

    def add(self, actions, words, end):
        """steps from `first` on; what is named as seen from the start can be asked for there alone"""
        if self.first == 0 or not any(map(is_seen_from, actions)):
            self.found.append([words, self.first, end])

    def of(self, T):
        """the parts of an episode of T steps, as archives keep them"""
        if self.is_one:
            return []
        return [[words, first, end or T] for words, first, end in self.found]
