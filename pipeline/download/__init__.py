"""Where raw files come from: packages of a registry, the Hugging Face hub, or a folder of one's own."""
