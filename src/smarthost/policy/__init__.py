"""Pure decisions: words in, words out."""
