"""The peer of tests/bench/tokenizer_bench_program.c: the SentencePiece library's batch call on one thread.

    peer_tokenizer.py MODEL TEXT ROUNDS

Prints the same JSON object, and the library's version."""
import json
import sys
import time

import sentencepiece


def fnv(rows):
    h = 0xCBF29CE484222325
    for row in rows:
        for i in row:
            h = ((h ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


library = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
with open(sys.argv[2], newline="\n") as file:
    lines = file.read().split("\n")
rounds = []
for _ in range(int(sys.argv[3])):
    start, busy = time.perf_counter(), time.process_time()
    ids = library.encode(lines, num_threads=1)
    rounds.append([time.perf_counter() - start, time.process_time() - busy])
print(json.dumps({"rounds": rounds, "bytes": sum(len(line.encode()) for line in lines),
                  "ids": sum(map(len, ids)), "hash": fnv(ids), "pieces": library.vocab_size(),
                  "version": sentencepiece.__version__}))
