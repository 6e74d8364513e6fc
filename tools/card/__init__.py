"""Papers to hand over with what was made: `make card` for a mix, `make model-card` for a run.

    mix_facts.py    what a mix is: from its lock-file, its manifest, its units' records and the recipes
    rules.py        its rules, with the place each comes from
    rebuild.py      the command that makes it again, the recipes that go with it, and the hash to find
    gaps.py         what is known to be missing or wrong
    data_card.py    the hub's data card, README.md
    croissant.py    croissant.json, through mlcroissant
    model_facts.py, training.py, model_card.py    the same for a run
    licences.py     licences by the hub's names
    markdown.py     text that others wrote, safe in Markdown

`card_of_mix` and `card_of_run` (command.py) return files by name, and write nothing.
"""
