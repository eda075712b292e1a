"""
Requests to a language model behind any OpenAI-compatible server. OPENAI_BASE_URL is its address, OPENAI_API_KEY its
key, if it wants one; neither is written anywhere. Answers are cached on disk: an interrupted run, started again, sends
only the requests without one.
"""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tqdm import tqdm

MAX_TOKENS = 300  # of an answer
MAX_TRIES = 3  # to send a request whose answer is empty, and to ask again where an answer is invalid
MAX_FAILURES = 10  # in a row: after more of them the server is taken to be down
REFUSALS = {  # statuses that no repetition changes
    401: 'it refuses the key: check OPENAI_API_KEY',
    403: 'it refuses the key: check OPENAI_API_KEY',
    404: "it knows no such model, or has another address: check the model's name and OPENAI_BASE_URL",
}


class NoAnswer(Exception):
    """This request has no answer, though the server may answer others."""


class LLM:
    """
    ask(messages) -> text, unchecked. After 429, 5xx or silence the client tries again, `retries` times, with back-off
    or as long as Retry-After says. `requests`, `cached` and `tokens` are counted.
    """

    def __init__(self, model, cache, temperature=0.0, concurrency=8, retries=5, timeout=60):
        """
        model: its name at the server; cache: a DiskCache; concurrency: requests at a time; timeout: seconds of silence

        Raises ValueError where the environment names no server, or where the key cannot be one.
        """
        import openai

        url = os.environ.get('OPENAI_BASE_URL', '')
        self.key = os.environ.get('OPENAI_API_KEY', '').strip()
        if not url and not self.key:
            raise ValueError(
                'which language model server? Set OPENAI_BASE_URL to its address, such as http://localhost:8000/v1, '
                "or OPENAI_API_KEY to use OpenAI's"
            )
        if not self.key.isascii() or not self.key.isprintable():
            raise ValueError('OPENAI_API_KEY holds characters that no key has. Copy it again')
        # 'none': a local server needs no key, but the client does
        self.client = openai.OpenAI(
            api_key=self.key or 'none', base_url=url or None, max_retries=retries, timeout=timeout
        )
        self.server = urlsplit(str(self.client.base_url)).netloc.rpartition('@')[2]  # without user and password
        self.model = model
        self.cache = cache
        self.temperature = temperature
        self.concurrency = concurrency
        self.lock = threading.Lock()  # of what follows
        self.requests = 0
        self.cached = 0  # answers from the cache
        self.tokens = 0
        self.failures = 0  # in a row
        self.last_error = ''
        self.has_answered = False  # any request of this run

    def ask(self, messages, number=0):
        """
        messages: dicts with role and content; number: of another answer to the same messages -> text

        Raises NoAnswer where this request has none, OSError where the server is down, ValueError where it refuses
        the key or the model.
        """
        request = {'model': self.model, 'messages': messages, 'temperature': self.temperature, 'max_tokens': MAX_TOKENS}
        key = hashlib.sha256(json.dumps({**request, 'number': number}, sort_keys=True).encode()).hexdigest()
        answer = self.cache.get(key)
        if answer is not None:
            with self.lock:
                self.cached += 1
            return answer.decode()
        for _ in range(MAX_TRIES):
            text = self.send(request)
            if text:
                break
        else:
            self.fail('what it answers is no chat completion')
        self.failures = 0
        self.has_answered = True
        self.cache.put(key, text.encode())
        return text

    def send(self, request):
        """-> the text of the answer, '' where it holds none. Raises as `ask` does"""
        import openai

        with self.lock:
            self.requests += 1
        try:
            completion = self.client.chat.completions.create(**request)
        except openai.APIStatusError as e:
            status = e.status_code
            if status in REFUSALS:
                raise ValueError(f'{self.server}, model {self.model}: {REFUSALS[status]} (status {status})') from None
            self.fail(f'status {status}, {e}')
        except openai.APITimeoutError:
            self.fail(f'silent for {self.client.timeout:g} s')
        except openai.APIConnectionError:
            self.fail('no connection, or one that is cut: is it running, is OPENAI_BASE_URL its address?', down=True)
        except ValueError:  # not JSON, or half of it
            return ''
        with self.lock:
            self.tokens += tokens_of(completion)
        text = text_of(completion)
        if self.key and self.key in text:  # a server may repeat the key: it must not reach the disk
            return ''
        return text

    def fail(self, error, down=False):
        """
        Count a request without an answer. down: there is no connection

        Raises NoAnswer; OSError where too many in a row have none, or where the server was never up.
        """
        if self.key:
            error = error.replace(self.key, '***')
        with self.lock:
            self.last_error = ' '.join(error.split())[:300]
            self.failures += 1
            give_up = self.failures > MAX_FAILURES or down and not self.has_answered
        if give_up:
            self.give_up()
        raise NoAnswer(self.last_error)

    def give_up(self):
        raise OSError(
            f'the language model at {self.server} does not answer ({self.last_error}). '
            'What it has answered is kept: run this again to go on'
        )

    def map(self, ask, jobs, desc):
        """
        ask(job) for every job, `concurrency` at a time, with a progress bar -> list of what it returns

        Raises the first error of `ask`, and OSError where no request had an answer.
        """
        bar = tqdm(total=len(jobs), desc=desc, unit='answers', mininterval=1, disable=None, leave=False)

        def ask_and_count(job):
            result = ask(job)
            with self.lock:
                bar.set_postfix(tokens=self.tokens, refresh=False)
                bar.update()
            return result

        with bar, ThreadPoolExecutor(self.concurrency) as pool:
            results = list(pool.map(ask_and_count, jobs))  # the first error cancels what has not begun
        if self.failures and not self.has_answered:
            self.give_up()
        return results


# the client takes any JSON for a completion: nothing of it is certain


def tokens_of(completion):
    """-> the tokens that the server counts for it, 0 where it counts none"""
    n = getattr(getattr(completion, 'usage', None), 'total_tokens', None)
    return n if isinstance(n, int) else 0


def text_of(completion):
    """-> its text as valid UTF-8, '' where there is none"""
    try:
        text = completion.choices[0].message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return ''
    if not isinstance(text, str):
        return ''
    return text.encode(errors='replace').decode().strip()


def ask_until_valid(llm, messages, invalid_because, number=0):
    """
    Ask until invalid_because(answer) is None; its text is the next message to the model.

    -> (answer, number of answers); (None, MAX_TRIES) where all were invalid, (None, 0) where a request had no answer
    """
    for tries in range(1, MAX_TRIES + 1):
        try:
            answer = llm.ask(messages, number)
        except NoAnswer:
            return None, 0
        objection = invalid_because(answer)
        if objection is None:
            return answer, tries
        messages = [*messages, {'role': 'assistant', 'content': answer}, {'role': 'user', 'content': objection}]
    return None, MAX_TRIES
