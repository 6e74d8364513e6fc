"""Coverage-guided fuzzing of everything that reads what others wrote (tools/fuzz.py runs it; docs/reliability.md has the results).

    target.py      what is fuzzed: seeds, how one input is run, what must hold
    readers.py     the readers, through the read stage     recipes.py   declarations     stored.py   what stores hold
    mutation.py    an input → a slightly different one, also behind compression, checksums and JSON
    coverage.py    which arcs between lines of our code an input takes
    search.py      the loop: keep what does something new, name what breaks a promise
    shrink.py      a fault's input → a smaller one with the same fault
    worker.py      one target in a process of its own, that may die

Why a loop of our own and not atheris (libFuzzer): what parses bytes here is mostly native code of others (libxml2, Arrow, orjson,
lexbor, isal, zstd). Atheris sees inside it only if all of it is compiled anew with its instrumentation, and versions 3.0 and 3.1
have wheels for Linux on x86 alone. This loop runs wherever the pipeline runs, and takes the shape of what comes out (an error's message
without its numbers, a failure's reason, the size of a record) as coverage of the code that it cannot see into.
"""
