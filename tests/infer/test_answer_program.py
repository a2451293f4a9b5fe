"""f2b-answer as a person runs it: one question, a file of them, a chat, a store; what it prints, and
the message and exit code of everything that cannot be."""
import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from oracle.random_model import SHAPES, write_llava

BUILD = Path(os.environ.get("F2B_BUILD_DIR", "build/release"))
BIN, TESTS = BUILD / "bin", BUILD / "tests"
METHOD = {
    "tokens": 3, "prompt": "Summarize the image in a few words.", "template": "vicuna_v1",
    "attention": "causal", "hidden_state": "final_norm", "forward": "double", "adapters": "stage",
    "temperature": 0.02, "language_model": "lora", "image_aspect_ratio": "pad",
    "lora": {"r": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]},
}
NEW = ["--max-new-tokens", 12]

pytestmark = pytest.mark.skipif(not (TESTS / "make_run").exists(), reason="make_run is not built")


def run(*args, stdin=""):
    done = subprocess.run([str(a) for a in args], capture_output=True, timeout=120,
                          input=stdin.encode())
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()   # must be UTF-8; \r stays
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    assert run(BIN / "f2b-data", "toy", "--out", folder, "--train", 1, "--val", 6).returncode == 0
    language = dict(SHAPES["gqa"]["language"], vocab_size=832, max_position_embeddings=160)
    SHAPES["vocab832"] = dict(SHAPES["gqa"], language=language)
    write_llava(folder / "base", "vocab832")
    del SHAPES["vocab832"]
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (folder / "base" / file).write_bytes((folder / "model" / file).read_bytes())
    for name, seed in (("run", 5), ("other", 6)):
        done = run(TESTS / "make_run", folder / "base", folder / name, json.dumps(METHOD), seed)
        assert done.returncode == 0, done.stderr
    return folder


def picture(world, i):
    return world / "images" / f"v{i:06d}.png"


def answer(world, *options, stdin=""):
    return run(BIN / "f2b-answer", "--checkpoint", world / "run", *NEW, *options, stdin=stdin)


def ask(world, *options, stdin=""):
    """Objects on stdout."""
    done = answer(world, *options, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def questions(world, tmp_path, lines, *options):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return ask(world, "--questions", file, "--images", world / "images", *options)


def ids(answers):
    return [a["metadata"]["ids"] for a in answers]


@pytest.mark.parametrize("tokens,rows", [("compressed", 3), ("full", 16), ("none", 0)])
def test_one_question(world, tokens, rows):
    options = ["--image", picture(world, 0), "--tokens", tokens, "What color is it?"]
    [full] = ask(world, "--json", *options)
    assert list(full) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert full["prompt"] == "What color is it?" and full["metadata"]["image_rows"] == rows
    assert len(full["metadata"]["ids"]) == 12 and not full["metadata"]["ended"]
    assert set(full["metadata"]["seconds"]) == {"model", "image", "prompt", "answer"}
    done = answer(world, *options)
    assert done.stdout == full["text"] + "\n"         # streamed, the same
    assert f"read {rows} visual and {full['metadata']['prompt_rows'] - rows} other" in done.stderr
    assert answer(world, "--quiet", *options).stderr == ""
    [named] = ask(world, "--json", "--question", options[-1], *options[:-1])
    assert ids([named]) == ids([full])


def test_image_matters(world):
    several = [ask(world, "--json", "--image", picture(world, i), "What is it?")[0]
               for i in range(6)]
    assert len({tuple(i) for i in ids(several)}) > 1


def some_lines():
    return [{"question_id": "a", "image": "v000000.png", "question": "What?"},
            {"image": "v000001.png", "text": "What color is the object?", "category": "conv"},
            {"question": "Hello world", "image": None},
            {"question_id": 7, "image": "v000000.png", "question": "<image>\nWhere is it?"},
            {"question": "And now?", "image": "v000002.png",
             "history": [["What is it?", "A square."], ["Red?", "No"]]},
            {"question": "Why?", "history": [["Hello world", "Hello."]]},
            {"question": "Qué 日本 🤗?", "image": "v000001.png"}]


def test_file_of_questions(world, tmp_path):
    answers = questions(world, tmp_path, some_lines(), "--batch", 3)
    assert [a["question_id"] for a in answers] == ["a", 1, 2, 7, 4, 5, 6]
    assert [a["metadata"]["image_rows"] for a in answers] == [3, 3, 0, 3, 3, 0, 3]
    assert "seconds" not in answers[0]["metadata"]
    for batch in (1, 100):
        assert questions(world, tmp_path, some_lines(), "--batch", batch) == answers
    [alone] = ask(world, "--json", "--image", picture(world, 1), "Qué 日本 🤗?")
    assert ids([alone]) == ids(answers[6:])
    [mark] = ask(world, "--json", "--image", picture(world, 0), "Where is it?")
    assert ids([mark]) == ids(answers[3:4])
    text = "".join(json.dumps(line) + "\n" for line in some_lines())
    assert ids(ask(world, "--questions", "-", "--images", world / "images", stdin=text)) == ids(
        answers)
    # The command line's image stands for lines that name none; null stays null.
    answers = questions(world, tmp_path, [{"question": "What?"}, {"question": "a", "image": None}],
                        "--image", picture(world, 0))
    assert [a["metadata"]["image_rows"] for a in answers] == [3, 0]


def test_draws(world, tmp_path):
    hot = ["--temperature", 1.5, "--top-p", 0.9, "--seed", 3]
    answers = questions(world, tmp_path, some_lines(), *hot)
    assert questions(world, tmp_path, some_lines(), *hot, "--batch", 1) == answers
    assert ids(questions(world, tmp_path, some_lines(), *hot[:-1], 4)) != ids(answers)
    assert ids(questions(world, tmp_path, some_lines())) != ids(answers)


def test_chat(world, tmp_path):
    """Each answer equals that to the conversation asked at once, though only its end is read."""
    said = ["What color is it?", "Is it yes or no?", "/reset", "What color is it?"]
    options = ["--image", picture(world, 0), "--chat", "--json"]
    chat = ask(world, *options, stdin="\n".join(said) + "\n")
    assert ids(chat[2:]) == ids(chat[:1]) and len(chat) == 3
    history = [[a["prompt"], a["text"]] for a in chat[:1]]
    again = questions(world, tmp_path, [{"question": said[1], "image": "v000000.png",
                                         "history": history}])
    assert ids(again) == ids(chat[1:2])
    assert again[0]["metadata"]["prompt_rows"] == chat[1]["metadata"]["prompt_rows"]
    plain = answer(world, "--image", picture(world, 0), "--chat", stdin="\n".join(said) + "\n")
    assert plain.stdout == "".join(a["text"] + "\n" for a in chat)
    reads = [line for line in plain.stderr.splitlines() if line.startswith("read ")]
    rows = chat[1]["metadata"]["prompt_rows"]
    assert reads[0].startswith("read 3 visual") and reads[1].startswith("read 0 visual")
    assert int(reads[1].split()[4]) < rows - 10       # the rest was in the cache
    assert answer(world, "--chat", stdin="/quit\nWhat?\n").stdout == ""
    help_text = answer(world, "--chat", stdin="/what\n")
    assert "/reset" in help_text.stderr and help_text.stdout == ""


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, *args):
        self.main, terminal = pty.openpty()
        self.program = subprocess.Popen([str(a) for a in args], stdin=terminal, stdout=terminal,
                                        stderr=terminal, start_new_session=True,
                                        # A suite that runs in the background ignores Ctrl-C.
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        os.close(terminal)
        self.shown = b""

    def read_until(self, words, seconds=60):
        end = time.monotonic() + seconds
        while words not in self.shown:
            ready = select.select([self.main], [], [], max(0, end - time.monotonic()))[0]
            assert ready, self.shown
            self.shown += os.read(self.main, 4096)
        self.shown = self.shown.split(words, 1)[1]

    def type(self, text):
        os.write(self.main, text)


def test_interrupted_chat(world):
    """Ctrl-C at the prompt does not end the program, nor does a question too long; Ctrl-D does."""
    t = Terminal(BIN / "f2b-answer", "--checkpoint", world / "run", "--image", picture(world, 0),
                 "--max-new-tokens", 140)
    t.read_until(b"> ")
    t.program.send_signal(signal.SIGINT)
    t.read_until(b"> ")
    t.type(b"What color is it?\n")
    t.read_until(b"tokens in ")
    t.read_until(b"> ")
    t.type(b"   \n/reset\n" + b"Tell me. " * 60 + b"\n")
    t.read_until(b"does not fit the model's context of 160")
    t.read_until(b"> ")
    t.type(b"\x04")
    assert t.program.wait(timeout=60) == 0
    os.close(t.main)


def compress(world, run_name, out):
    done = run(BIN / "f2b-compress", "--checkpoint", world / run_name, "--images",
               world / "images", "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr


def test_store(world, tmp_path):
    compress(world, "run", tmp_path / "store")
    store = ["--store", tmp_path / "store"]
    [direct] = ask(world, "--json", "--image", picture(world, 2), "What is it?")
    [stored] = ask(world, "--json", *store, "--id", "v000002.png", "What is it?")
    assert stored["metadata"]["image_rows"] == 3
    assert ids([stored])[0][:4] == ids([direct])[0][:4]       # f16 tokens
    lines = [{"question": "What is it?", "id": f"v00000{i}.png"} for i in (2, 0, 2)]
    answers = questions(world, tmp_path, lines + [{"question": "Hello"}], *store)
    assert ids(answers[:1]) == ids(answers[2:3]) == ids([stored])
    assert answers[1]["metadata"]["image"] == "v000000.png"
    assert answers[3]["metadata"]["image_rows"] == 0
    chat = ask(world, "--json", "--chat", *store, "--id", "v000002.png", stdin="What is it?\n")
    assert ids(chat) == ids([stored])
    for code, words, options in (
            (3, "no image \"none\"", [*store, "--id", "none", "What?"]),
            (2, "needs --id", [*store, "What?"]),
            (2, "--id needs --store", ["--id", "x", "What?"]),
            (2, "choose one", [*store, "--id", "x", "--image", "y", "What?"]),
            (2, "compressed tokens", [*store, "--id", "x", "--tokens", "full", "What?"]),
            (3, "no-such-store", ["--store", tmp_path / "no-such-store", "--id", "x", "What?"])):
        done = answer(world, *options)
        assert done.returncode == code and words in done.stderr, done.stderr
    compress(world, "other", tmp_path / "others")
    done = answer(world, "--store", tmp_path / "others", "--id", "v000002.png", "What?")
    assert done.returncode == 3 and done.stdout == "", done.stderr
    assert str(tmp_path / "others") in done.stderr and "another" in done.stderr, done.stderr


@pytest.mark.parametrize("line,words", [
    ('{"question": "What?"', "column"), ("[1]", "must be a JSON object"), ("{}", "no question"),
    ('{"question": 3}', "question must be a string"),
    ('{"question": "a", "text": "b"}', "only one"),
    ('{"question": "a", "imgae": "b"}', "unknown key imgae"),
    ('{"question": "a", "id": "b"}', "no --store is given"),
    ('{"question": "a", "question_id": [1]}', "question_id must be"),
    ('{"question": "a", "history": [["b"]]}', "array of [question, answer]"),
    ('{"question": "a", "history": {"b": "c"}}', "array of [question, answer]"),
    ('{"question": "a", "history": [["b", 4]]}', "array of [question, answer]"),
    ('{"question": "a", "question": "b"}', "duplicate"), ('{"question": "\\u0000"}', "column"),
    ('{"question": "a", "history": [["b", " "]]}', "answer is empty"),
    ('{"question": " ", "image": "images/v000000.png"}', "question is empty"),
    ('{"question": "a<image>b<image>", "image": "images/v000000.png"}', "more than one <image>"),
    ('{"question": "a", "image": "none.png"}', "none.png"),
    ('{"question": "a", "image": "val.json"}', "val.json"),
    (json.dumps({"question": "word " * 200}), "does not fit the model's context of 160")])
def test_bad_lines(world, line, words):
    """Named by file and line; what came before it in the file has been asked or not, never half."""
    file = world / "bad.jsonl"
    file.write_text('{"question": "Good?"}\n\n' + line + "\n")
    done = answer(world, "--questions", file)
    assert done.returncode == 3, done.stderr
    assert f"{file}:3: " in done.stderr and words in done.stderr, done.stderr
    assert done.stdout == ""


def test_refusals(world, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "cut.png").write_bytes(picture(world, 0).read_bytes()[:200])
    image = ["--image", picture(world, 0)]
    for code, words, options in (
            (3, "bad.txt", ["--image", tmp_path / "bad.txt", "What?"]),
            (3, "val.json", ["--image", world / "val.json", "What?"]),
            (3, "cut.png", ["--image", tmp_path / "cut.png", "What?"]),
            (3, "context of 160 (max_position_embeddings)", [*image, "word " * 200]),
            (3, "question is empty", [*image, "  "]),
            (3, "no questions", ["--questions", tmp_path / "empty.jsonl"]),
            (3, "none.jsonl", ["--questions", tmp_path / "none.jsonl"]),
            (2, "no question is given", image), (2, "given twice", ["--question", "a", "b"]),
            (2, "choose one", ["--questions", "x", "What?"]),
            (2, "choose one", ["--chat", "What?"]), (2, "--images", ["--images", "x", "What?"]),
            (2, "--temperature", ["--top-p", "0.5", "What?"]),
            (2, "--temperature", ["--seed", "5", "What?"]),
            (2, "--tokens is one of", ["--tokens", "some", "What?"]),
            (2, "--batch is from", ["--batch", "0", "What?"])):
        done = answer(world, *options)
        assert done.returncode == code and words in done.stderr, done.stderr
        assert done.stdout == ""
    done = run(BIN / "f2b-answer", "--model", world / "base", "--tokens", "compressed", "What?")
    assert done.returncode == 2 and "--tokens full" in done.stderr
    if os.access("/dev/full", os.W_OK):
        with open("/dev/full", "w") as full:
            done = subprocess.run([BIN / "f2b-answer", "--checkpoint", world / "run", "What?"],
                                  stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 3 and "standard output" in done.stderr


def test_base_alone(world):
    done = run(BIN / "f2b-answer", "--model", world / "base", "--image", picture(world, 0), *NEW,
               "--json", "What?")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metadata"]["image_rows"] == 16
