"""What the libraries and the operating system raise, as one sentence with its remedy, by kind.

The kinds are told by the names of an exception's classes, its HTTP status and its words: those of
hub, HTTP library and Rust code wrap one another in a dozen ways, but keep them.
"""

import re

from accelerate.utils.memory import should_reduce_batch_size
from huggingface_hub import constants

FULL = "No space left|not enough space on the disk|Disk quota exceeded|File too large"
DENIED = "PermissionError|Permission denied|Read-only file system"
MEMORY = (
    "MemoryError|OutOfMemoryError|[Nn]ot enough memory|an't allocate memory|annot allocate memory"
    "|bad_alloc|paging file is too small|an't start new thread|could not create a primitive"
)
MACHINE = {
    FULL: "The disk is full ({reason}): free some space, or choose another disk with --output for "
    "runs, with HF_HOME for models; what was finished is kept.",
    DENIED: "You may not read or write a file ({reason}): have its owner allow it, or choose "
    "another folder.",
    "out of memory on GPU|CUDA out of memory|OutOfMemoryError": "The GPU's memory ran out, even "
    "with one self-edit at a time: free it of other programs, or take a smaller model with "
    "--model; what was finished is kept.",
    MEMORY: "This computer's memory ran out, even with one self-edit at a time: close other "
    "programs, raise the limit that `ulimit -v` shows, or take a smaller model with --model; what "
    "was finished is kept.",
    "SafetensorError": "A file of weights is damaged or not whole ({reason}): copy it again.",
}
LOGIN = "JSONDecodeError|FileMetadataError"
BROKEN = "ConnectionReset|RemoteProtocolError|ReadError|ReadTimeout|IncompleteRead|Data processing"
SILENT = "ConnectionError|ConnectError|TransportError|TimeoutError|gaierror|LocalEntryNotFound"
NETWORK = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, so the hub is not "
    "asked: unset it, or {instead}.",
    "CERTIFICATE_VERIFY|SSLError|SSL:": "the certificate of {hub} is not trusted here: put the "
    "path of your network's root certificate into SSL_CERT_FILE, check this computer's clock, or "
    "{instead}.",
    "407 Proxy|HTTP 407|ProxyError.*407|client error .407": "the network's proxy asks who you are "
    "(407): write them into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT, or {instead}.",
    "HTTP 403(?! of the hub)|ProxyError.*403|client error .403": "a proxy or firewall forbids "
    "{hub} (403): ask whoever runs the network to allow it, or {instead}.",
    "HTTP 429|client error .429": "{hub} has had too many requests from here (429): wait some "
    "minutes, put a token into HF_TOKEN, which allows more, or {instead}.",
    "ProxyError": "the network's proxy lets nothing through ({reason}): check HTTPS_PROXY, or "
    "{instead}.",
    r"HTTP 5\d\d|server error .5\d\d": "{hub} is out of order ({status}): try again later, or "
    "{instead}.",
    LOGIN: "what answered is not {hub} but perhaps a network's login page: log in with a browser, "
    "check HF_ENDPOINT, or {instead}.",
    BROKEN: "the connection to {hub} broke ({reason}): try again, which goes on where it stopped, "
    "or {instead}.",
    SILENT: "{hub} can't be reached: connect to the network, or {instead}.",
}


def chain_of(error: BaseException) -> list[BaseException]:
    """An exception and, in turn, what each was raised from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def signs_of(error: BaseException) -> str:
    """A line by which the tables know an exception: its classes, its HTTP status, its text."""
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    whose = " of the hub" if getattr(error, "request_id", None) else ""
    return f"{names}{f' HTTP {status}{whose}' if status else ''}: {' '.join(str(error).split())}"


def reason_of(error: BaseException) -> str:
    """The first sentence of an exception's text, with its kind if that has no text of its own."""
    text = " ".join(re.split(r"\n\n|\.\s", str(error))[0].split()).rstrip(".")
    plain = text and isinstance(error, (OSError, ValueError, RuntimeError, ImportError))
    return text if plain else f"{type(error).__name__}: {text}".rstrip(": ")


def explain(error: BaseException, missing: str | None = None, instead: str = "") -> str | None:
    """One sentence with the remedy; None for a kind that is in neither table.

    missing: what is not here, as the sentence on a network begins; None where there is none.
    instead: what to do without a network, as it goes on.

    >>> explain(ConnectionError(), "It is not here", "name a file")  # doctest: +ELLIPSIS
    "It is not here, and https://... can't be reached: connect to the network, or name a file."
    """
    tables = [(MACHINE, "")] + ([(NETWORK, f"{missing}, and ")] if missing else [])
    for table, start in tables:
        for pattern, sentence in table.items():
            for one in chain_of(error):
                if re.search(pattern, signs := signs_of(one)):
                    words = {"hub": constants.ENDPOINT, "instead": instead}
                    words["status"] = (re.findall(r"\b5\d\d\b", signs) or [""])[0]
                    return start + sentence.format(reason=reason_of(one), **words)
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or a CPU, so that a smaller batch may do."""
    return should_reduce_batch_size(error) or bool(re.search(MEMORY, signs_of(error)))
