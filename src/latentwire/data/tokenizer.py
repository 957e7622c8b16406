"""The reader's tokenizer: byte-level, one token for each word of the demo corpus, bytes for everything else."""

from __future__ import annotations

import re
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from latentwire.data import corpus, lexicon

BOS, END, USER, ASSISTANT, SYSTEM, PAD = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def corpus_words() -> list[str]:
    """Every word that a corpus of any seed can contain, in alphabetical order."""
    texts: list[Any] = [*lexicon.ADJECTIVES, *lexicon.NOUNS, *lexicon.ORGANISATION_KINDS, *lexicon.PLACE_PREFIXES]
    texts += [*lexicon.OCCUPATIONS, *lexicon.FIELDS, *lexicon.PRODUCTS, *lexicon.THEMES, *lexicon.YEARS]
    for words in lexicon.word_lists().values():
        texts += words.words
    for relations in [*corpus.LINKS.values(), *corpus.FACTS.values()]:
        for relation in relations:
            wordings = (*relation.sentences, *relation.questions, *relation.reverse_questions)
            texts += [wording.format(s="", o="") for wording in wordings]
    return sorted({word for text in texts for word in re.findall(r"\w+", text)})


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, from the corpus's words alone; the same at every call."""
    byte_symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*byte_symbols, "Context", "Question", *(f"Ġ{word}" for word in corpus_words())]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    # Whole words are taken as they are (ignore_merges); with no merges, any other word falls into bytes.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
