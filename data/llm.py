"""
Ask a language model behind any OpenAI-compatible server. OPENAI_BASE_URL says where it is, OPENAI_API_KEY is its key, if it
wants one; neither is written anywhere. Answers are kept on disk, so that an interrupted run goes on where it was.
"""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tqdm import tqdm

MAX_TOKENS = 300  # of an answer
TRIES = 3  # times that a request is sent again where the answer is none, and an answer asked for again where it is not right
PATIENCE = 10  # requests in a row that fail for good: then it is the server, and no use to go on
REFUSED = {
    401: 'it refuses the key: check OPENAI_API_KEY',
    403: 'it refuses the key: check OPENAI_API_KEY',
    404: "it knows no such model, or has another address: check the model's name and OPENAI_BASE_URL",
}


class NoAnswer(Exception):
    """The server answers others, but not this request: the failure counts, and the run goes on."""


class LLM:
    """
    ask(messages) -> text, of which nothing is believed yet. 429, 5xx and silence are waited for and tried again by the
    client, `retries` times, with back-off or as long as Retry-After says. `requests`, `cached` and `tokens` are counted.
    """

    def __init__(self, model, kept, temperature=0.0, at_once=8, retries=5, timeout=60):
        """kept: a DiskCache; timeout: seconds of silence"""
        import openai

        url, self.key = os.environ.get('OPENAI_BASE_URL', ''), os.environ.get('OPENAI_API_KEY', '').strip()
        if not url and not self.key:
            raise ValueError(
                "which language model server? Set OPENAI_BASE_URL to its address, such as http://localhost:8000/v1, or OPENAI_API_KEY to use OpenAI's"
            )
        if not self.key.isascii() or not self.key.isprintable():
            raise ValueError('OPENAI_API_KEY holds characters that no key has. Copy it again')
        self.client = openai.OpenAI(
            api_key=self.key or 'none', base_url=url or None, max_retries=retries, timeout=timeout
        )  # local servers want no key, the client does
        self.server, self.lock = urlsplit(str(self.client.base_url)).netloc.rpartition('@')[2], threading.Lock()
        self.model, self.kept, self.temperature, self.at_once = model, kept, temperature, at_once
        self.requests = self.cached = self.tokens = self.failed = 0  # failed: in a row
        self.answered, self.why = False, ''

    def ask(self, messages, number=0):
        """messages, dicts with role and content; number: of another answer to the same -> text; NoAnswer where this request has none"""
        request = {'model': self.model, 'messages': messages, 'temperature': self.temperature, 'max_tokens': MAX_TOKENS}
        key = hashlib.sha256(json.dumps({**request, 'number': number}, sort_keys=True).encode()).hexdigest()
        if (known := self.kept.get(key)) is not None:
            with self.lock:
                self.cached += 1
            return known.decode()
        text = next(filter(None, (self.send(request) for _ in range(TRIES))), None)
        if text is None:
            self.fail('what it answers is no chat completion')
        self.failed, self.answered = 0, True
        self.kept.put(key, text.encode())
        return text

    def send(self, request):
        """-> the text of the answer, '' where there is none in it"""
        import openai

        with self.lock:
            self.requests += 1
        try:
            answer = self.client.chat.completions.create(**request)
        except openai.APIStatusError as e:
            if e.status_code in REFUSED:
                raise ValueError(
                    f'{self.server}, model {self.model}: {REFUSED[e.status_code]} (status {e.status_code})'
                ) from None
            self.fail(f'status {e.status_code}, {e}')
        except openai.APITimeoutError:
            self.fail(f'silent for {self.client.timeout:g} s')
        except openai.APIConnectionError:
            self.fail('no connection, or one that is cut: is it running, is OPENAI_BASE_URL its address?', down=True)
        except ValueError:  # not JSON, or half of it
            return ''
        with self.lock:
            used = getattr(getattr(answer, 'usage', None), 'total_tokens', None)
            self.tokens += used if isinstance(used, int) else 0
        try:
            text = answer.choices[0].message.content
        except (AttributeError, IndexError, KeyError, TypeError):  # the client takes any JSON for an answer
            return ''
        text = text.encode(errors='replace').decode().strip() if isinstance(text, str) else ''
        return '' if self.key and self.key in text else text  # nor is a key kept that a server repeats

    def fail(self, why, down=False):
        """one request has no answer; the run ends where many in a row have none, or the server is down and was never up"""
        with self.lock:
            self.why = ' '.join((why.replace(self.key, '***') if self.key else why).split())[:300]
            self.failed += 1
            over = self.failed > PATIENCE or down and not self.answered
        if over:
            self.end()
        raise NoAnswer(self.why)

    def end(self):
        raise OSError(
            f'the language model at {self.server} does not answer ({self.why}). What it has answered is kept: run this again to go on'
        )

    def each(self, ask, jobs, desc):
        """ask(job) for every job, at_once at a time, with a bar -> list of what it returns"""
        bar = tqdm(total=len(jobs), desc=desc, unit='answers', mininterval=1, disable=None, leave=False)

        def one(job):
            found = ask(job)
            with self.lock:
                bar.set_postfix(tokens=self.tokens, refresh=False)
                bar.update()
            return found

        with bar, ThreadPoolExecutor(self.at_once) as pool:
            found = list(pool.map(one, jobs))  # the first error cancels what has not begun
        if self.failed and not self.answered:
            self.end()
        return found


def ask_until_valid(llm, messages, invalid_because, number=0):
    """
    Ask until invalid_because(answer) is None, telling the model what it complains about.

    -> (the answer, how many were asked for); None instead of the answer where TRIES were wrong, 0 instead of the number where one had no answer
    """
    for tries in range(1, TRIES + 1):
        try:
            answer = llm.ask(messages, number)
        except NoAnswer:
            return None, 0
        wrong = invalid_because(answer)
        if wrong is None:
            return answer, tries
        messages = [*messages, {'role': 'assistant', 'content': answer}, {'role': 'user', 'content': wrong}]
    return None, TRIES
