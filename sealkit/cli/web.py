"""`ask --web`: a page on which one edits a self-edit, lets it be learned, and asks questions.

One form and the standard library's server: nothing is installed for it, and nothing is fetched.
Each request carries all that it needs, so that going back and reloading do no harm.
"""

from collections.abc import Mapping
from functools import lru_cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from ..inner_loop import tokenize
from ..runs.files import RunError
from ..tasks import knowledge
from ..tasks.passages import Question
from .page import TEMPLATES
from .record import Record
from .talk import Student, choose_passage, learn, load_policy, normalize, write_self_edit

ADDRESS = "127.0.0.1"  # nobody but this machine is answered
MOST = 2**24  # bytes of a request


class Lessons:
    """What the page can be asked for: lessons of a Record's last policy, the latest ones kept."""

    def __init__(self, record: Record, number: int) -> None:
        self.record, self.policy, self.first = record, load_policy(record), number
        self.learn, self.write = lru_cache(2)(self._learn), lru_cache(2)(self._write)
        self.lock = Lock()  # one model, one lesson at a time

    def _write(self, number: int) -> str:
        return write_self_edit(self.policy, self.record.test[number - 1], self.record)

    def _learn(self, number: int, edit: str) -> tuple[Student, list[float]]:
        passage, most = self.record.test[number - 1], self.policy.config.max_tokens
        texts = knowledge.lesson(passage, edit, self.policy.config).texts
        if len(texts) == 1:
            raise ValueError("There is no line in the self-edit to learn from: write one.")
        if (count := sum(map(len, tokenize(self.policy, texts)))) > most:
            both = f"with the passage it has {count:,} tokens, and {most} are learned"
            raise ValueError(f"The self-edit is too long: {both}. Shorten it.")
        return learn(self.policy, passage, edit)

    def page(self, form: Mapping[str, str]) -> str:
        """The page that answers a form; what is wrong with the form stands on it in a sentence."""
        values: dict[str, Any] = dict.fromkeys(("problem", "advice", "losses", "answers"))
        values |= {"number": self.first, "question": form.get("question", "")}
        with self.lock:
            try:
                self.answer(form, values)
            except ValueError as error:
                values["problem"] = str(error)
            own = self.write(values["number"])
        values |= {"own": own, "edit": values.get("edit", own), "record": self.record}
        return TEMPLATES.get_template("web.html").render(values, config=self.policy.config)

    def answer(self, form: Mapping[str, str], values: dict[str, Any]) -> None:
        """Put into the values of the page what a form asks for. Raises ValueError."""
        # 1. the passage, whose self-edit the policy writes
        do, count = form.get("do", "write"), len(self.record.test)
        number = form.get("passage" if do == "choose" else "shown", str(self.first))
        if number not in map(str, range(1, count + 1)):
            raise ValueError(f"There is no passage {number[:9]!r}: choose one of the {count}.")
        values["number"] = int(number)
        if do in ("choose", "write"):
            return

        # 2. or the given one, which is learned
        values["edit"] = form.get("edit", "").replace("\r", "")
        student, values["losses"] = self.learn(int(number), values["edit"])

        # 3. questions, by number or in words
        exam = [str(n + 1) for n in range(len(student.passage.questions))]
        text = form.get("question", "").strip() if do == "ask" else do
        if not text:
            raise ValueError("Type a question of your own first, or ask one of the exam's.")
        texts = {"learn": [], "all": exam}.get(do, [text])
        questions = [student.known.get(normalize(text), Question(text, ())) for text in texts]
        values["answers"] = [(question, student.answer(question)) for question in questions]
        if questions and not questions[0].answers:
            values["advice"] = student.advice(text)


class Handler(BaseHTTPRequestHandler):
    """Answers each request for the page, from this machine alone."""

    def __init__(self, lessons: Lessons, *connection: Any) -> None:
        self.lessons = lessons
        super().__init__(*connection)

    def do_GET(self) -> None:
        """The page as it opens."""
        self.respond({})

    def do_POST(self) -> None:
        """The page that answers a form."""
        size = self.headers.get("Content-Length", "")
        if not (size.isdecimal() and len(size) < 9 and int(size) <= MOST):
            self.send_error(413, f"A form has at most {MOST:,} bytes: shorten it.")
            return
        body = self.rfile.read(int(size)).decode("utf-8", "replace")
        try:
            fields = parse_qs(body, keep_blank_values=True, max_num_fields=9)
        except ValueError:
            self.send_error(400, "This form is not one of the page's: reload it.")
            return
        self.respond({name: values[0] for name, values in fields.items()})

    def respond(self, form: Mapping[str, str]) -> None:
        """Send the page; nothing to a site that has this machine's address under its own name."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        if self.path != "/" or host not in (ADDRESS, "localhost"):
            self.send_error(404, "There is one page here: open the address as printed.")
            return
        source = self.lessons.page(form).encode("utf-8", "replace")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(source)))
        self.end_headers()
        self.wfile.write(source)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests in the terminal."""


def make_server(record: Record, number: int = 1) -> ThreadingHTTPServer:
    """The server of the page for a Record, on a free port. Raises RunError, as `talk` does."""
    choose_passage(record, number)
    if record.streams:
        folder = repr(str(record.folder))
        raise RunError(f"{folder} holds streams, learned already: leave --web out to ask them.")
    return ThreadingHTTPServer((ADDRESS, 0), partial(Handler, Lessons(record, number)))


def serve(record: Record, number: int = 1) -> None:
    """Serve the page until Ctrl-C. Raises RunError, as `talk` does."""
    with make_server(record, number) as server:
        print(f"Open http://{ADDRESS}:{server.server_port} in a browser. Ctrl-C ends.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
