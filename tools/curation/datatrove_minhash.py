"""datatrove's MinHash in four stages (datatrove.pipeline.dedup.minhash), as its examples run them, in one process.

    python -m tools.curation.datatrove_minhash <folder with documents.jsonl> <scratch folder> <out.json>

Out: CPU seconds by stage, start and imports left out, and of each document in a cluster of two or more, by its place in
documents.jsonl, the cluster's number.
"""

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from loguru import logger


def main() -> None:
    documents, scratch, target = sys.argv[1:]
    logger.remove()
    config = MinhashConfig()
    signatures, buckets, removed = (f"{scratch}/{name}" for name in ("signatures", "buckets", "removed"))
    reader: dict[str, Any] = {"data_folder": documents, "compression": None, "file_progress": False, "doc_progress": False}
    signature = MinhashDedupSignature(signatures, config)
    signature.word_tokenizer.word_tokenize("warm")  # loads spaCy
    stages: dict[str, tuple[list[Any], int]] = {
        "signatures": ([JsonlReader(**reader), signature], 1),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        "cluster": ([MinhashDedupCluster(buckets, removed, config=config, save_cluster_id=True)], 1),
        "filter": ([JsonlReader(**reader), MinhashDedupFilter(removed)], 1),
    }
    seconds = {}
    for name, (pipeline, tasks) in stages.items():
        began = time.process_time()
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{scratch}/logs/{name}").run()
        seconds[name] = time.process_time() - began
    [found] = Path(removed).glob("*.clusters")  # pairs of document and cluster, of the one file
    clusters = dict(struct.iter_unpack("<II", found.read_bytes()))
    Path(target).write_text(json.dumps({"cpu_seconds": seconds, "clusters": clusters}))


if __name__ == "__main__":
    main()
