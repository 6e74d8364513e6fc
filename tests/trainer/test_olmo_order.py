"""OLMo itself and our loader on the same headerless shards: the same instances in every step, masked and cut alike.

OLMo runs in an environment of its own (tools/peers.py), made once: minutes and up to 1.3 GB.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline.test_foreign_readers import WITHOUT_CLOUDS, run
from tests.trainer.test_data import EOS, LENGTH, draw_tokens
from tools import peers
from trainer.data import MicroBatches, loader
from trainer.flat_shards import FlatShards
from trainer.losses import IGNORED

pytestmark = pytest.mark.slow

SEED, BATCH, EPOCHS = 6198, 16, 2
OLMO = """
from olmo.config import InstanceFilterConfig
from olmo.data.iterable_dataset import IterableDataset
from olmo.data.memmap_dataset import MemMapDataset
world, seed, batch, epochs = map(int, paths[:4])
dataset = MemMapDataset(*paths[4:], chunk_size=int(length), memmap_dtype=np.uint16, generate_doc_lengths=True, eos_token_id=int(eos),
                        pad_token_id=1, instance_filter_config=InstanceFilterConfig())  # 32 repeats of 1 to 13 tokens
steps = []
for epoch in range(epochs):
    ranks = [list(IterableDataset(dataset, batch, seed=seed, epoch=epoch, shuffle=True, drop_last=True, world_size=world, rank=rank))
             for rank in range(world)]
    part = batch // world
    for step in range(len(ranks[0]) // part):
        steps.append([item for rank in ranks for item in rank[step * part : (step + 1) * part]])
documents = np.zeros((len(steps) * batch, int(length)), int)
for row, item in zip(documents, (item for step in steps for item in step)):
    row[: len(item["doc_lens"])] = item["doc_lens"]
np.savez(out, tokens=np.array([[np.asarray(item["input_ids"]) for item in step] for step in steps]),
         kept=np.array([[bool(item["instance_mask"]) for item in step] for step in steps]), documents=documents)
"""


@pytest.mark.parametrize("world", [1, 2])
def test_each_step_has_the_instances_that_olmo_trains_on(world: int, tmp_path: Path) -> None:
    paths = []
    for number, size in enumerate((70 * LENGTH + 5, 31 * LENGTH, LENGTH - 1)):
        tokens = draw_tokens([23] * (size // 23) + [size % 23] * (size % 23 > 0), number)
        for place in range(0, size - LENGTH, 5 * LENGTH):
            tokens[place + 7 : place + 7 + 3 * 16] = [1, 2, 3] * 16  # not often enough
            tokens[place + LENGTH : place + LENGTH + 40] = 4
        paths.append(tmp_path / f"part-{number}.npy")
        tokens.tofile(paths[-1])
    run(peers.OLMO, "-c", WITHOUT_CLOUDS + OLMO, tmp_path / "olmo.npz", LENGTH, EOS, 60_000, world, SEED, BATCH, EPOCHS, *paths)
    theirs = np.load(tmp_path / "olmo.npz")

    shards = FlatShards(paths, "uint16", LENGTH, SEED, EOS, epochs=EPOCHS, global_batch=BATCH)
    batches = list(loader(MicroBatches(shards, ["shards"], document_ids=True), global_batch=BATCH))
    tokens = torch.cat([batch.input_ids for batch in batches]).numpy()
    kept = (torch.cat([batch.labels for batch in batches]) != IGNORED).all(dim=1).numpy()
    documents = torch.cat([batch.document_ids for batch in batches if batch.document_ids is not None]).numpy()
    assert theirs["tokens"].shape == (2 * (101 // BATCH), BATCH, LENGTH) and 0 < (~kept).sum() < len(kept)

    flat, flat_kept, lengths = theirs["tokens"].reshape(-1, LENGTH), theirs["kept"].reshape(-1), theirs["documents"]
    for step in range(len(theirs["tokens"])):
        own = range(step * BATCH, (step + 1) * BATCH)
        ours = {tokens[i].tobytes(): (kept[i], np.bincount(documents[i]).tolist()) for i in own}
        assert ours == {flat[i].astype(np.int64).tobytes(): (flat_kept[i], [n for n in lengths[i].tolist() if n]) for i in own}
    if world == 1:
        np.testing.assert_array_equal(tokens, flat)
