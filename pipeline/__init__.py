"""Raw corpora in, memory-mapped token shards and mixes out.

    download → read → prepare → tokenize → tag → filter → hold out → dedupe → edit → decide → gather → mix

Each stage is one file under `pipeline/stages/`. A stage maps *units* of work to folders that are written once,
named by the hash of everything that went in, and never changed. `build.py` strings the stages together,
`engine.py` runs the units that are not there yet, `catalog.py` lets DuckDB see every table.
"""

from pipeline.compiled import use_own_cache

use_own_cache()
