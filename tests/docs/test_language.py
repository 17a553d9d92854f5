"""Texts are plain English: none of them has words or sentences that are hard to understand.

Checked are docstrings, comments and messages of the code, and the pages of the documentation. Code
and quotations in them are left out.
"""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "django_cocobase_realtime"

# words and phrases, with what to write instead
WORDS = {
    r"whoever|whomever|whosoever": "a client that, users who",
    r"nobody|somebody": "no client, a user",
    r"anew|afresh": "again",
    r"lest": "so that ... not",
    r"for ever": "forever",
    r"by and by": "later, by the next sweep",
    r"all the same": "even then",
    r"mend|mends|mended|mending": "fix, repair",
    r"stumbles?|stumbled": "fail",
    r"he|him|his|himself": "it, the client",
    r"tells?|told|telling": "send, report, notify, distinguish",
    r"hears?|heard|hearing": "receive",
    r"said": "sent, documented",
    r"ere|whilst|hitherto|thereof|therein|wherein|whereof": "before, while, in which",
    r"(?:none|true|false|empty|nothing|null) where": "None if",
    r"where (?:there (?:is|are|was)|none|possible|needed|necessary|wanted)": "if",
    r"one an? (?:hub|process|stream|connection|loop|collection|room|server|client|user|database"
    r"|dialect|member|event|thread|second|file|page|browser|model|table|field|test)": "one per",
}
# sentences: what begins with a clause, and ends as a statement
FRONTED_CLAUSE = re.compile(r"(?:^|(?<=[.!?:;]\s))(?:What|Whatever|Who|Whose)\s[^.?!:;]*[.;:]")
# words with which an imperative sentence does not begin
NOT_IMPERATIVE = {
    "The", "A", "An", "This", "That", "These", "Those", "It", "Its", "Each", "All", "Every", "One",
    "Two", "None", "True", "False", "What", "Whatever", "Who", "Whose", "Which", "Whether",
    "Where", "When", "Why", "How", "From", "In", "On", "At", "Of", "For", "With", "Without", "Is",
    "Are", "Was", "Has",
}  # fmt: skip

# names of variables that do not say what they hold
VAGUE_NAMES = {"each", "found", "held", "made", "meanwhile", "moved", "said", "told"}

# reasons why a file may have a word, by (path, word)
ALLOWED = {}

PATTERNS = {words: re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE) for words in WORDS}
QUOTATION = re.compile(r"``[^`]*``|`[^`]*`|\"[^\"\n]*\"|“[^”]*”")


def find_words(text):
    """Return the words in a text that must not be written, each with a better one."""
    text = QUOTATION.sub(" … ", text)
    problems = [
        f"{match[0]!r}: write {instead!r}"
        for words, instead in WORDS.items()
        if (match := PATTERNS[words].search(text))
    ]
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*|#:])", text):
        if (match := FRONTED_CLAUSE.search(" ".join(paragraph.split()))) is not None:
            problems.append(f"{match[0]!r}: begin with the subject")
    return problems


def python_texts(source, *, strings):
    """Yield (line, text) of docstrings and comments, and with ``strings`` of messages."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        if node in docstrings or (strings and " " in node.value):
            yield node.lineno, node.value
    comments = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == token.start[0]:
                comments[-1] = (comments[-1][0], f"{comments[-1][1]}\n{text}")
            else:
                comments.append((token.start[0], text))
    yield from comments


def script_texts(source):
    """Yield (line, text) of the comments and messages of JavaScript, TypeScript or CSS."""
    token = re.compile(
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`",
        re.DOTALL,
    )
    for match in token.finditer(source):
        text = match[0]
        line = source.count("\n", 0, match.start()) + 1
        if text.startswith("/"):
            yield line, text.strip("/* ")
        elif " " in text:
            yield line, text[1:-1]


def page_texts(source):
    """Yield (line, text) of a Markdown page, without code and the targets of links."""
    source = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), source, flags=re.M | re.S)
    source = re.sub(r"\]\([^)]*\)", "]", source)
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("#"):  # headings may be clauses
            line = re.sub(r"^#+ (?:What|Who)\b", "#", line)
        yield number, line


def template_texts(source):
    """Yield (line, text) of a template, without tags and scripts."""
    source = re.sub(r"<script.*?</script>", lambda m: "\n" * m[0].count("\n"), source, flags=re.S)
    source = re.sub(r"<[^>]*>|\{%.*?%\}|\{\{.*?\}\}", " ", source)
    yield from enumerate(source.splitlines(), 1)


def comment_texts(source):
    """Yield (line, text) of the comments of a shell script, Makefile or TOML file."""
    for number, line in enumerate(source.splitlines(), 1):
        if (match := re.search(r"(?:^|\s)#(?!!)(.*)", line)) is not None:
            yield number, match[1]


def texts(path):
    """Return (line, text) of all texts in a file."""
    source = (ROOT / path).read_text()
    match Path(path).suffix:
        case ".py":
            return python_texts(source, strings=not path.startswith("tests/"))
        case ".js" | ".mjs" | ".ts" | ".css":
            return script_texts(source)
        case ".md":
            return page_texts(source)
        case ".html":
            return template_texts(source)
    return comment_texts(source)


def written_files():
    """Return the paths of all files with texts that are under version control."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    suffixes = {".py", ".js", ".mjs", ".ts", ".css", ".md", ".html", ".toml", ".sh", ""}
    this = Path(__file__).relative_to(ROOT).as_posix()
    return [
        path
        for path in listed
        if Path(path).suffix in suffixes
        and path not in (this, "LICENSE", ".gitignore")
        and not path.startswith("benchmarks/results/")
        and (ROOT / path).is_file()
    ]


def package_functions():
    """Yield (location, first line of the docstring) of each function of the package."""
    for path in written_files():
        if path.startswith(f"{PACKAGE}/") and path.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / path).read_text())):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
                docstring = ast.get_docstring(node)
                if docstring and not decorators & {"property", "cached_property"}:
                    yield f"{path}:{node.lineno} {node.name}", docstring.splitlines()[0]


@pytest.mark.parametrize("path", written_files())
def test_texts_have_no_words_that_are_hard_to_understand(path):
    problems = [
        f"{path}:{line} {problem}"
        for line, text in texts(path)
        for problem in find_words(text)
        if not any(path == allowed and word in problem for (allowed, word) in ALLOWED)
    ]
    assert not problems, "\n".join(problems)


def test_names_of_tests_have_no_such_words():
    names = [
        (path, node.name)
        for path in written_files()
        if path.startswith("tests/") and path.endswith(".py")
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [found for found in names if find_words(found[1].replace("_", " "))] == []


def test_docstrings_of_functions_are_imperative_sentences():
    problems = [
        (location, line)
        for location, line in package_functions()
        if line.split()[0] in NOT_IMPERATIVE or line.split()[0].islower() or line[-1] not in ".:"
    ]
    assert problems == []


def test_names_of_variables_say_what_they_hold():
    problems = [
        f"{path}:{node.lineno} {name}"
        for path in written_files()
        if path.startswith((f"{PACKAGE}/", "benchmarks/")) and path.endswith(".py")
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Name | ast.arg)
        and (name := getattr(node, "id", None) or getattr(node, "arg", None)) in VAGUE_NAMES
    ]
    assert problems == []


@pytest.mark.parametrize(
    "text",
    [
        "Whoever has no session of your site needs a key.",
        "Do what is done for ever, again should it stumble: nobody would notice.",
        "A group that nobody needs is left by and by.",
        "The past was told: tell what was said meanwhile.",
        "The row, None where there is none.",
        "What waits is sent.",
        "It is locked. What was read is then written anew.",
        "One thread, one a hub.",
        "The client begins where he was.",
        "Closed, lest it be sent twice; the writer mends it all the same.",
    ],
)
def test_hard_text_is_found(text):
    assert find_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "Return the identity that a token proves, or None.",
        "Run a background job forever, restarting it after an exception.",
        'The author wrote "whoever" and ``nobody``, and `he`.',
        "What happens if the client is disconnected?",
        "Its position is where it was suspended.",
    ],
)
def test_plain_text_is_accepted(text):
    assert find_words(text) == []
