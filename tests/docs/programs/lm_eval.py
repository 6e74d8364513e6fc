"""lm_eval without its data sets, which lie on the hub: the model that it is given must load, and its arguments must be its own."""

from collections.abc import Sequence

from tests.docs.programs.asked import Arguments, refuse

TASKS = {"arc_easy", "arc_challenge", "piqa", "sciq", "hellaswag", "winogrande", "boolq", "openbookqa", "copa", "mmlu"}


def lm_eval(arguments: Sequence[str]) -> int:
    parser = Arguments("lm_eval")
    parser.add_argument("--model", choices=["hf"], required=True)
    parser.add_argument("--model_args", required=True)
    parser.add_argument("--tasks", required=True)
    asked = parser.parse_args(arguments)
    given = dict(pair.split("=", 1) for pair in asked.model_args.split(","))
    if unknown := set(asked.tasks.split(",")) - TASKS:
        refuse(f"Tasks not found: {', '.join(sorted(unknown))}")
    if set(given) != {"pretrained"}:
        refuse("--model_args takes pretrained=<folder> here")
    from transformers import AutoModelForCausalLM, AutoTokenizer  # seconds

    AutoTokenizer.from_pretrained(given["pretrained"], local_files_only=True)
    print(type(AutoModelForCausalLM.from_pretrained(given["pretrained"], local_files_only=True)).__name__)
    return 0
